"""The window of lua/window.lua in plain Python: it makes the same decisions, for one process and without I/O.

It is used while Redis is away, and the Lua is tested against it. Times are whole microseconds that the caller names.
lua/window.lua has the invariant and the reasons. This module is plain rather than fast: O(log n) while there is room,
O(n) once there is a queue.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import Literal

Obstacle = Literal["requests", "tokens"]


@dataclass(slots=True)
class Entry:
    """An admitted request, or a promise if it has a `print`. It counts at the time `at`."""

    at: int
    cost: int
    name: str
    print: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The request is admitted when `obstacle` is None. Otherwise it may come back in `wait` us."""

    obstacle: Obstacle | None
    wait: int = 0


_at: Callable[[Entry], int] = attrgetter("at")
_at_and_name: Callable[[Entry], tuple[int, str]] = attrgetter("at", "name")


class Window:
    """`window` and `grace` are us. The limits come with each call, because they may change between calls."""

    def __init__(self, window: int, grace: int) -> None:
        self.window = window
        self.grace = min(grace, window)
        self._drop = min(2 * grace, window)
        self._early = min(50_000, window // 200)
        self._now = 0
        self._front = 0
        self._entries: list[Entry] = []  # by time
        self._by_name: dict[str, Entry] = {}
        self._promises: list[Entry] = []  # by time
        self._total = 0

    def seed(self, now: int, requests: int, tokens: int) -> None:
        """Books what is known to be used already, as if it had all happened now."""
        for i in range(requests):
            self._add(Entry(now, tokens if i == 0 else 0, f"seed {i}"))
        self._now = max(self._now, now)

    def admit(
        self, now: int, rpm: int | None, tpm: int | None, *, name: str, print: str, cost: int, retry: bool = False
    ) -> Decision:
        """Admits the request, or promises it a place. `print` is its fingerprint, and `cost` at most `tpm`."""
        own = next((promise for promise in self._promises if promise.print == print), None)
        if own is not None and now < own.at <= now + self._early:
            now = own.at
        now = self._advance(now)
        own = next((promise for promise in self._promises if promise.print == print), None)
        if own is not None and own.at <= now:
            self._claim(own, name, cost)
            return Decision(None)
        impatient = [promise for promise in self._promises if promise.print == print] if retry else []
        if impatient:  # the latest of equal requests' promises goes, because the others may be on their way
            self._remove(impatient[-1])
        obstacle = self._obstacle(now, rpm, tpm, cost)
        if obstacle is None:
            self._add(Entry(now, cost, name))
            return Decision(None)
        if impatient:
            self._add(impatient[-1])
            return Decision(obstacle, impatient[0].at - now)
        left = self._abandoned(now, tpm, cost)
        if left is not None:
            self._claim(left, name, cost)
            return Decision(None)
        due = self._next_place(now, rpm, tpm, cost)
        if len(self._promises) < min(1024, max(256, 2 * (rpm or 0))):
            self._add(Entry(due, cost, f"{print}:{due:016d}:{name}", print))
        return Decision(obstacle, due - now)

    def correct(self, name: str, used: int) -> None:
        """Books `used` tokens instead of those reserved, because the request is over."""
        entry = self._by_name.get(name)
        if entry is not None:
            self._total += used - entry.cost
            entry.cost = used

    def booked(self, now: int) -> tuple[int, int, int]:
        """Returns the requests and tokens booked, and in how many us nothing of them is left."""
        now = self._advance(now)
        return len(self._entries), self._total, max(0, self._front + self.window - now)

    def entries(self) -> list[tuple[int, int]]:
        """Returns (accounted time, tokens) of each entry, promises included."""
        return [(entry.at, entry.cost) for entry in self._entries]

    def _advance(self, now: int) -> int:
        if self._now - now > self.window:  # the clock went back
            self._entries, self._by_name, self._promises, self._total = [], {}, [], 0
            self._now = self._front = 0
        self._now = now = max(now, self._now)
        while self._promises and self._promises[0].at <= now - self._drop:
            self._remove(self._promises[0])
        gone = bisect_right(self._entries, now - self.window, key=_at)
        for entry in self._entries[:gone]:
            self._total -= entry.cost
            del self._by_name[entry.name]
        del self._entries[:gone]
        if not self._entries:
            self._front = 0
        return now

    def _add(self, entry: Entry) -> None:
        insort(self._entries, entry, key=_at)
        self._by_name[entry.name] = entry
        if entry.print is not None:
            insort(self._promises, entry, key=_at_and_name)
        self._total += entry.cost
        self._front = max(self._front, entry.at)

    def _remove(self, entry: Entry) -> None:
        self._entries.remove(entry)
        self._promises.remove(entry)
        del self._by_name[entry.name]
        self._total -= entry.cost

    def _claim(self, promise: Entry, name: str, cost: int) -> None:
        self._remove(promise)
        self._add(Entry(promise.at, cost, name))

    def _abandoned(self, now: int, tpm: int | None, cost: int) -> Entry | None:
        for promise in self._promises[:32]:
            if promise.at > now - self.grace:
                break
            if tpm is None or promise.cost >= cost:
                return promise
        return None

    def _obstacle(self, now: int, rpm: int | None, tpm: int | None, cost: int) -> Obstacle | None:
        many = rpm is not None and len(self._entries) + 1 > rpm
        much = tpm is not None and self._total + cost > tpm
        if not many and not much:
            return None
        ends = [now, *(p.at for p in self._promises if now < p.at < now + self.window)]
        times = [entry.at for entry in self._entries]
        sums = [0, *accumulate(entry.cost for entry in self._entries)]
        spans = [(bisect_right(times, end - self.window), bisect_right(times, end)) for end in ends]
        if rpm is not None and any(last - first + 1 > rpm for first, last in spans):
            return "requests"
        if tpm is not None and any(sums[last] - sums[first] + cost > tpm for first, last in spans):
            return "tokens"
        return None

    def _next_place(self, now: int, rpm: int | None, tpm: int | None, cost: int) -> int:
        """Returns the first free time behind everything booked, so only entries that leave matter."""
        due = max(now, self._front)
        count, tokens = len(self._entries), self._total
        for entry in self._entries:
            fits = (rpm is None or count + 1 <= rpm) and (tpm is None or tokens + cost <= tpm)
            if fits and entry.at > due - self.window:
                break
            count, tokens = count - 1, tokens - entry.cost
            due = max(due, entry.at + self.window)
        return due
