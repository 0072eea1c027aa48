"""Where a broken answer can be cut, so that another engine goes on from there without a seam: pure.

An engine's text comes later than its token ids: incomplete characters are held back, and with stop strings the last
characters too, in which one may begin. What was held back when the stream broke is lost, so the tokens it belongs to
have to be generated again. The cut stands after a token with which all text had come out (a prompt that ends within a
character makes vLLM tell the whole prompt again) and before the place where a stop string not yet complete may begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_REDRAWN = 2  # sampled tokens whose text has to come out as before: each further one makes that less likely


@dataclass(frozen=True, slots=True)
class Step:
    """One event of the stream: the generated token ids and the text it brought."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Stops:
    """longest: characters of the longest stop string, 1 where there is none. included: whether it belongs to the
    answer; the engine then holds nothing back."""

    longest: int = 1
    included: bool = False

    @property
    def reach(self) -> int:
        """How many characters before the text's end an incomplete stop string may begin."""
        return self.longest - 1

    @property
    def held(self) -> int:
        """How many characters the engine's text lags behind its tokens."""
        return 0 if self.included else self.reach


@dataclass(frozen=True, slots=True)
class Cut:
    """steps: how many of the steps remain. kept: how many of the answer's tokens. owed: the text that was sent, but
    belongs to the tokens behind the cut: they have to bring it again. start: characters before `owed`, counted from
    the first of the steps. sent: the text of the steps that do not remain."""

    steps: int
    kept: int
    owed: str
    start: int
    sent: str


def choose(
    steps: Sequence[Step], count: int, stops: Stops, *, whole: bool, sampled: bool, doubtful: int = -1
) -> Cut | None:
    """The latest cut; None if there is none.

    steps: the last events, all of them if `whole`. count: the answer's tokens so far. sampled: tokens behind the cut
    will hardly come again as they were. doubtful: a number of tokens after which not to cut.
    """
    text = "".join(step.text for step in steps)
    flushing = _flushing(steps, stops)
    kept, shown = count, len(text)
    cut: Cut | None = None
    for position in range(len(steps) - 1, -1, -1):
        step = steps[position]
        start = shown + stops.held
        fits = shown + stops.reach <= len(text)
        if fits and step.text and kept != doubtful and _is_clean(step, text, start, flushing):
            cut = Cut(position + 1, kept, text[start:], start, text[shown:])
            break
        kept -= len(step.ids)
        shown -= len(step.text)
    if cut is None and whole:
        first = next((position for position, step in enumerate(steps) if step.ids or step.text), len(steps))
        cut = Cut(first, 0, text, 0, text)
    if cut is not None and sampled and _tokens_for(cut, steps) > _REDRAWN:
        return None
    return cut


def _tokens_for(cut: Cut, steps: Sequence[Step]) -> int:
    """About how many tokens it takes to bring what is owed: an event's text is that of its tokens, or lags behind."""
    tokens, missing = 0, len(cut.owed)
    for step in steps[cut.steps :]:
        if missing <= 0:
            break
        tokens += len(step.ids)
        missing -= len(step.text)
    return tokens


def _is_clean(step: Step, text: str, start: int, flushing: frozenset[int]) -> bool:
    """Whether all characters are complete after a step that brought text, which then reaches up to `start`."""
    if len(step.ids) == 1:
        return True  # this token completed what was held back
    if not step.ids:
        return False
    # Of several tokens the last may have begun a character. It would come out next, and is never ASCII.
    return text[start].isascii() if start < len(text) else step.ids[-1] in flushing


def _flushing(steps: Sequence[Step], stops: Stops) -> frozenset[int]:
    """Tokens that are known to end in an ASCII character: after them nothing is held back."""
    if stops.held:
        return frozenset()  # a step's text is not that of its token
    return frozenset(step.ids[0] for step in steps if len(step.ids) == 1 and step.text and step.text[-1].isascii())
