"""A memory that lasts for a moment. Its keys may come and go for ever, because old entries take no room."""

from __future__ import annotations

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Fading(Generic[Value]):
    """All times are passed in, and are of one clock that never goes back."""

    __slots__ = ("_held", "_keep_s")

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._held: dict[str, tuple[float, Value]] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: str, now: float) -> Value | None:
        """The value that was put last; None if that was `keep_s` ago or more."""
        held = self._held.get(key)
        return held[1] if held is not None and now - held[0] < self._keep_s else None

    def put(self, key: str, value: Value, now: float) -> None:
        self._held.pop(key, None)
        while self._held:
            oldest = next(iter(self._held))
            if now - self._held[oldest][0] < self._keep_s:
                break
            del self._held[oldest]
        self._held[key] = now, value

    def forget(self, key: str) -> None:
        self._held.pop(key, None)
