"""Stop strings where two engines meet: what neither of them sees whole, and what the first one would have held back."""

from __future__ import annotations

from .cut import Stops


class Seam:
    """Looks for stop strings that begin before the cut and end behind it, as vLLM looks for all others."""

    def __init__(self, before: str, stops: Stops, *, kept: int, min_tokens: int) -> None:
        """before: the answer up to the cut, or its end. kept: its tokens. min_tokens: up to them none is looked for."""
        self._strings = stops.strings
        self._reach = stops.reach
        self._text = before[-stops.reach :] if stops.reach else ""
        self._edge = len(self._text)
        self._searched = self._edge
        self._tokens = kept
        self._min_tokens = min_tokens

    @property
    def passed(self) -> bool:
        """Whether no stop string can reach across any more."""
        return len(self._text) - self._edge >= self._reach

    def feed(self, text: str, tokens: int) -> tuple[str, int] | None:
        """The stop string that is completed first, and how much of `text` it takes; None if there is none."""
        start = len(self._text)
        self._text += text
        self._tokens += tokens
        if self._tokens <= self._min_tokens:
            self._searched = len(self._text)
            return None
        found: tuple[str, int] | None = None
        for string in self._strings:
            at = self._text.find(string, max(0, self._searched - len(string) + 1))
            end = at + len(string) - start
            if 0 <= at < self._edge and (found is None or end < found[1]):
                found = string, end
        self._searched = len(self._text)
        return found

    def is_first(self, stop: str, end: int, other: object, length: int) -> bool:
        """Whether `stop`, found at `end`, comes before the stop string that the engine found at the text's end, at
        `length`, if `other` is one; of two that end together the one named first counts."""
        if end < length or not isinstance(other, str):
            return True
        return self._strings.index(stop) < self._strings.index(other)


class Hold:
    """Lets text out as an engine does that does not show stop strings: their longest may begin in what is left."""

    def __init__(self, pending: str, stops: Stops) -> None:
        self._pending = pending
        self._length = stops.held

    def feed(self, text: str) -> str:
        self._pending += text
        out = self._pending[: -self._length] if self._length else self._pending
        self._pending = self._pending[len(out) :]
        return out

    def last(self, text: str, stop: str = "") -> str:
        """All that is left, without the stop string that ended it."""
        return (self._pending + text).removesuffix(stop)
