"""Where a broken answer can be cut, so that another engine goes on from there without a seam: pure.

An engine's text comes later than its token ids: incomplete characters are held back, and with stop strings the last
characters too, in which one may begin. What was held back when the stream broke is lost, so the tokens it belongs to
have to be generated again, unless somebody tells their text. The cut stands after a token with which every character
was complete: a prompt that ends within one makes vLLM tell the whole prompt's text again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_PART = "\ufffd"  # what part of a character looks like


@dataclass(frozen=True, slots=True)
class Step:
    """One event of the stream: the generated token ids and the text it brought."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Stops:
    """included: whether the stop string belongs to the answer; the engine then holds nothing back."""

    strings: tuple[str, ...] = ()
    included: bool = False

    @property
    def reach(self) -> int:
        """How many characters before the text's end an incomplete stop string may begin."""
        return max((len(string) - 1 for string in self.strings), default=0)

    @property
    def held(self) -> int:
        """How many characters the engine's text lags behind its tokens."""
        return 0 if self.included else self.reach


@dataclass(frozen=True, slots=True)
class Cut:
    """steps: how many of the steps remain. kept: how many of the answer's tokens. before: the text of the steps up to
    the cut. owed: the text behind it that was sent: the next tokens have to bring it again. pending: text before the
    cut that was never sent; None: no text is missing there."""

    steps: int
    kept: int
    before: str
    owed: str = ""
    pending: str | None = None

    def unsent_by(self, steps: Sequence[Step]) -> str:
        """The text of the steps that do not remain."""
        return "".join(step.text for step in steps[self.steps :])


def choose(steps: Sequence[Step], count: int, stops: Stops, *, whole: bool, doubtful: int = -1) -> Cut | None:
    """The latest cut; None if there is none.

    steps: the last events, all of them if `whole`. count: the answer's tokens so far. doubtful: a number of tokens
    after which not to cut.
    """
    text = "".join(step.text for step in steps)
    flushing = _flushing(steps, stops)
    kept, shown = count, len(text)
    for position in range(len(steps) - 1, -1, -1):
        step = steps[position]
        start = shown + stops.held
        if start <= len(text) and kept != doubtful and _is_clean(step, text, start, flushing):
            # A stop string across the cut has to be found: its beginning must be known, or come again.
            known = whole or stops.held or start >= stops.reach
            return Cut(position + 1, kept, text[:start], text[start:]) if known else None
        kept -= len(step.ids)
        shown -= len(step.text)
    if not whole:
        return None
    first = next((position for position, step in enumerate(steps) if step.ids or step.text), len(steps))
    return Cut(first, 0, "", text)


def sharpened(cut: Cut, steps: Sequence[Step], count: int, stops: Stops, told: str) -> Cut | None:
    """A later cut, after the last step with text, by the text of all tokens behind `cut`; None if it does not fit what
    was sent. It then has no part of a character at its end, and no special tokens without text."""
    last = max((position for position, step in enumerate(steps) if step.text), default=-1)
    if last < cut.steps:
        return None
    textless = sum(len(step.ids) for step in steps[last + 1 :])
    length = len(cut.owed) + stops.held
    for text in (told, f" {told}"):  # some tokenizers drop a space at the beginning
        rest = text[length:]
        fits = len(text) >= length and text.startswith(cut.owed) and not text[:length].endswith(_PART)
        if fits and not (rest.strip(_PART) if textless else rest):
            pending = text[len(cut.owed) : length]
            return Cut(last + 1, count - textless, cut.before + text[:length], pending=pending)
    return None


def tokens_owed(cut: Cut, steps: Sequence[Step]) -> int:
    """About how many tokens it takes to bring what is owed: an event's text is that of its tokens, or lags behind."""
    tokens, missing = 0, len(cut.owed)
    for step in steps[cut.steps :]:
        if missing <= 0:
            break
        tokens += len(step.ids)
        missing -= len(step.text)
    return tokens


def _is_clean(step: Step, text: str, start: int, flushing: frozenset[int]) -> bool:
    """Whether all characters are complete after a step; its text then reaches up to `start`."""
    if not step.ids or not step.text:
        return False
    if len(step.ids) == 1:
        return True  # this token completed what was held back
    # Of several tokens the last may have begun a character. It would come out next, and is never ASCII.
    return text[start].isascii() if start < len(text) else step.ids[-1] in flushing


def _flushing(steps: Sequence[Step], stops: Stops) -> frozenset[int]:
    """Tokens that are known to end in an ASCII character: after them nothing is held back."""
    if stops.held:
        return frozenset()  # a step's text is not that of its token
    return frozenset(step.ids[0] for step in steps if len(step.ids) == 1 and step.text and step.text[-1].isascii())
