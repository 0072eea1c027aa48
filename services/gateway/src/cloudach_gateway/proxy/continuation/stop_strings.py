"""Stop strings where the texts of two engines meet: pure.

A stop string may begin in the first engine's text and end in the second's, so that neither engine sees all of it. And
the second engine must hold text back as the first one did.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopStrings:
    """The stop strings of a request.

    included: the stop string belongs to the answer. The engine then holds no text back.
    """

    strings: tuple[str, ...] = ()
    included: bool = False

    @property
    def reach(self) -> int:
        """How many characters before the text's end an incomplete stop string may begin."""
        return max((len(string) - 1 for string in self.strings), default=0)

    @property
    def held_back(self) -> int:
        """How many characters the engine's text lags behind its tokens."""
        return 0 if self.included else self.reach


class BoundarySearch:
    """Looks for stop strings that begin before the resume point and end behind it. The engine finds all others."""

    def __init__(self, before: str, stops: StopStrings, *, kept: int, min_tokens: int) -> None:
        """before: the answer up to the resume point, or the last characters of it. kept: the number of its tokens.
        min_tokens: no stop string counts before the answer has more tokens than this."""
        self._strings = stops.strings
        self._reach = stops.reach
        self._text = before[-stops.reach :] if stops.reach else ""
        self._edge = len(self._text)
        self._searched = self._edge
        self._tokens = kept
        self._min_tokens = min_tokens

    @property
    def passed(self) -> bool:
        """Tells that no stop string can reach across the resume point any more."""
        return len(self._text) - self._edge >= self._reach

    def feed(self, text: str, tokens: int) -> tuple[str, int] | None:
        """Returns the stop string that is completed first, and how many characters of `text` it takes; None if none
        is."""
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
        """Returns whether `stop`, which ends at `end`, comes before `other`, which the engine found at the text's end.

        other: the engine's stop reason, which is a text only if it found a stop string. length: where the text ends. Of
        two stop strings that end together, the one that the request names first counts.
        """
        if end < length or not isinstance(other, str):
            return True
        return self._strings.index(stop) < self._strings.index(other)


class HeldBackText:
    """Holds text back as an engine does that must not show stop strings.

    The last characters stay here, because a stop string may begin in them.
    """

    def __init__(self, pending: str, stops: StopStrings) -> None:
        self._pending = pending
        self._length = stops.held_back

    def feed(self, text: str) -> str:
        self._pending += text
        out = self._pending[: -self._length] if self._length else self._pending
        self._pending = self._pending[len(out) :]
        return out

    def last(self, text: str, stop: str = "") -> str:
        """Returns all that is left, without the stop string that ended the answer."""
        return (self._pending + text).removesuffix(stop)
