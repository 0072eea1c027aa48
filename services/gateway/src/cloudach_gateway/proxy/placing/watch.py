"""A request waits for its engine here. Meanwhile its client gets heart-beats, and its whole time is bounded."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol, TypeVar

from ...errors import UpstreamTimeout
from ...settings import Timeouts
from ..engine.exchange import Exchange, Happened
from .mailbox import Mailbox

# A timer that is late is no proof of a silent engine: the loop was held up, and has not read yet what came meanwhile.
_LATE_S = 0.05
_SECOND_LOOK_S = 0.02


Found = TypeVar("Found")


class Reader(Protocol):
    """This is the client's side of a stream. Since `paused_at`, in the loop's time, the client takes nothing."""

    @property
    def paused_at(self) -> float | None: ...

    def takes_nothing(self) -> bool:
        """Returns True if the client has taken nothing since it was paused, or since the last call.

        Otherwise it returns False and sets `paused_at` to now.
        """

    async def beat(self) -> None: ...


class Watch:
    """A watch lets one request wait for what its engine does, and sends its client heart-beats meanwhile.

    All times are the loop's, in seconds. Waiting raises UpstreamTimeout once `timeouts.total_s` is over.
    """

    def __init__(self, timeouts: Timeouts, reader: Reader | None, *, spent_s: float = 0.0) -> None:
        """`spent_s` is the part of `timeouts.total_s` that had passed before."""
        self.clock = asyncio.get_running_loop().time
        self._mail: Mailbox[tuple[Exchange, Happened] | None] = Mailbox()
        self._reader = reader
        self._timeouts = timeouts
        self._ends_at = self.clock() + timeouts.total_s - spent_s
        self._beat_at = self.clock() + timeouts.heartbeat_s if reader is not None else math.inf
        self.post = self._mail.post

    def look_again(self) -> None:
        """Makes a waiting `found` call its `look` again now."""
        self._mail.post(None)

    async def event(self, exchange: Exchange, until: float, *, begun: bool = True) -> Happened | None:
        """Returns what happened to the exchange. Returns None at `until`, or earlier when the caller should look again.

        It sends heart-beats meanwhile. `begun` is True once the client gets what the engine says. Before that, empty
        events of the engine do not postpone a heart-beat.
        """
        while True:
            beat_at = self._beat_at
            if self._reader is not None:
                beat_at = max(beat_at, self._broken_at(exchange, begun) + self._timeouts.heartbeat_s)
            look_at = min(until, beat_at, self._ends_at)
            got = await self._mail.get(look_at)
            if got is None and self.clock() > look_at + _LATE_S:
                got = await self._mail.get(self.clock() + _SECOND_LOOK_S)
            if got is not None:
                if got[0] is exchange:
                    self._beat_at = max(self._beat_at, self._broken_at(exchange, begun) + self._timeouts.heartbeat_s)
                    return got[1]
                continue  # of one that was given up
            now = self.clock()
            self._check(now)
            heard_at = self._broken_at(exchange, begun)
            if now < beat_at or now < heard_at + self._timeouts.heartbeat_s or now >= until:
                return None
            await self._beat()

    def _broken_at(self, exchange: Exchange, begun: bool) -> float:
        """Returns when the client last got something, or may have got it."""
        return exchange.heard_at if begun else exchange.began_at

    async def sleep(self, seconds: float) -> None:
        await self.found(_nothing, self.clock() + seconds)

    async def found(self, look: Callable[[], Found | None], until: float) -> Found | None:
        """Returns what `look` finds; None if it found nothing by `until`. Every `look_again` makes it look again.

        It sends heart-beats meanwhile. Raises UpstreamTimeout, and what `look` raises.
        """
        while (found := look()) is None:
            if self.clock() >= until:
                return None
            await self._mail.get(min(until, self._beat_at, self._ends_at))
            now = self.clock()
            self._check(now)
            if now >= self._beat_at:
                await self._beat()
        return found

    def _check(self, now: float) -> None:
        if now >= self._ends_at:
            raise UpstreamTimeout(
                "The answer took longer than a request may take.", cause=f"over {self._timeouts.total_s} s in total"
            )

    async def _beat(self) -> None:
        self._beat_at = self.clock() + self._timeouts.heartbeat_s
        if self._reader is not None and self._reader.paused_at is None:
            await self._reader.beat()


def _nothing() -> None:
    return None
