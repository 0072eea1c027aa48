"""From which token of a broken answer another engine goes on, so that the client cannot tell: pure.

An engine's text comes later than its token ids. It holds back characters that are not complete, and where there are
stop strings also the last characters, because one may begin in them. Text that was held back when the stream broke is
lost. Its tokens have to be generated again, unless an engine tells their text (/detokenize). The resume point stands
after a token that completed all characters, because vLLM repeats the prompt's text when a prompt ends within one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .stop_strings import StopStrings

_PART = "\ufffd"  # an incomplete character decodes to this


@dataclass(frozen=True, slots=True)
class Step:
    """One event of the stream: the generated token ids and the text that it brought."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where another engine goes on.

    steps: how many of the steps are before the point. kept: how many of the answer's tokens are before it. before: the
    text of the steps up to the point. owed: the text behind it that the client has, so that the next tokens have to
    bring it again. pending: text before the point that the client does not have; None if it has all of that.
    """

    steps: int
    kept: int
    before: str
    owed: str = ""
    pending: str | None = None

    def unsent_by(self, steps: Sequence[Step]) -> str:
        """Returns the text of the steps behind the point."""
        return "".join(step.text for step in steps[self.steps :])


def latest_point(
    steps: Sequence[Step], count: int, stops: StopStrings, *, whole: bool, doubtful: int = -1
) -> ResumePoint | None:
    """Returns the latest resume point; None if there is none.

    steps: the last events, all of them if `whole`. count: the answer's tokens so far. doubtful: no point may stand
    after this number of tokens.
    """
    text = "".join(step.text for step in steps)
    flushing = _flushing(steps, stops)
    kept, shown = count, len(text)
    for position in range(len(steps) - 1, -1, -1):
        step = steps[position]
        start = shown + stops.held_back
        if start <= len(text) and kept != doubtful and _is_clean(step, text, start, flushing):
            # A stop string across the point has to be found, so its beginning must be known, or come again.
            known = whole or stops.held_back or start >= stops.reach
            return ResumePoint(position + 1, kept, text[:start], text[start:]) if known else None
        kept -= len(step.ids)
        shown -= len(step.text)
    if not whole:
        return None
    first = next((position for position, step in enumerate(steps) if step.ids or step.text), len(steps))
    return ResumePoint(first, 0, "", text)


def later_point(
    point: ResumePoint, steps: Sequence[Step], count: int, stops: StopStrings, detokenized: str
) -> ResumePoint | None:
    """Returns a later point, after the last step with text; None if `detokenized` does not fit what was sent.

    detokenized: the text of all tokens behind `point`. At a later point no character is incomplete, and no special
    token without text comes before it.
    """
    last = max((position for position, step in enumerate(steps) if step.text), default=-1)
    if last < point.steps:
        return None
    textless = sum(len(step.ids) for step in steps[last + 1 :])
    length = len(point.owed) + stops.held_back
    for text in (detokenized, f" {detokenized}"):  # some tokenizers drop a space at the beginning
        rest = text[length:]
        fits = len(text) >= length and text.startswith(point.owed) and not text[:length].endswith(_PART)
        if fits and not (rest.strip(_PART) if textless else rest):
            pending = text[len(point.owed) : length]
            return ResumePoint(last + 1, count - textless, point.before + text[:length], pending=pending)
    return None


def tokens_owed(point: ResumePoint, steps: Sequence[Step]) -> int:
    """Returns about how many tokens bring the owed text again. A step's text may lag behind its tokens."""
    tokens, missing = 0, len(point.owed)
    for step in steps[point.steps :]:
        if missing <= 0:
            break
        tokens += len(step.ids)
        missing -= len(step.text)
    return tokens


def _is_clean(step: Step, text: str, start: int, flushing: frozenset[int]) -> bool:
    """Returns whether all characters are complete after a step. Its text then reaches up to `start`."""
    if not step.ids or not step.text:
        return False
    if len(step.ids) == 1:
        return True  # this token completed what was held back
    # The last of several tokens may have begun a character. It would come out next, and is never ASCII.
    return text[start].isascii() if start < len(text) else step.ids[-1] in flushing


def _flushing(steps: Sequence[Step], stops: StopStrings) -> frozenset[int]:
    """Returns tokens that are known to end in an ASCII character, so that nothing is held back after them."""
    if stops.held_back:
        return frozenset()  # a step's text is not that of its token
    return frozenset(step.ids[0] for step in steps if len(step.ids) == 1 and step.text and step.text[-1].isascii())
