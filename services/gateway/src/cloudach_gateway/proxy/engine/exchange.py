"""One request at one engine. Its answer reaches the asker as a status, events or a whole body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from openai_wire.sse import DONE, EventSplitter, EventTooLarge, payloads

from ...errors import without_frames
from .answer_headers import Headers, may_be_events
from .chunk import LARGEST_ANSWER, BadChunk, EngineReportedError, NotReproducible, TooLarge
from .connection import Connection, Shortcut

_LARGEST_REFUSAL = 16 * 1024 * 1024  # bytes; vLLM's may quote the whole request
_LARGEST_EVENT = 16 * 1024 * 1024
_LAST_BYTES_S = 1.0

Sink = Callable[[list[bytes]], None]


class Lane(NamedTuple):
    """The short way of whole events to the client: what `relay` returns is written. None sends them the long way.

    shortcut: returns the fast path, which is shorter still, once the stream's form is known.
    """

    relay: Callable[[bytes], bytes | None]
    write: Callable[[bytes], None]
    shortcut: Callable[[], Shortcut | None] = lambda: None


class Happened(Enum):
    """An exchange posts these about itself. `Exchange.problem` explains them."""

    EVENTS = "its first events are there"
    WHOLE = "its whole body is there, because a whole answer was asked for, or it is not 200, or no event stream"
    DONE = "[DONE]"
    BROKE = "it ended before its end"


class Exchange:
    """`Engines.open` makes it. Events wait in `pending` until `sink` is set. Later events go straight to the sink."""

    __slots__ = (
        "_body",
        "_connection",
        "_done",
        "_events",
        "_heard_at",
        "_largest",
        "_loop",
        "_open_lane",
        "_over",
        "_post",
        "_splitter",
        "answer",
        "began_at",
        "headers",
        "lane",
        "pending",
        "problem",
        "resend",
        "sink",
        "status",
        "upstream",
    )

    def __init__(
        self,
        upstream: str,
        connection: Connection,
        post: Callable[[tuple[Exchange, Happened]], None],
        *,
        events: bool,
        largest: int = LARGEST_ANSWER,
    ) -> None:
        """largest: the most bytes of a whole answer, and of one event."""
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = connection
        self._post = post
        self._events = events
        self._largest = largest
        self._splitter = EventSplitter(limit=min(largest, _LARGEST_EVENT))
        self._body = bytearray()
        self._done = False
        self._over = False
        self.upstream = upstream
        self.status = 0
        self.headers: Headers = {}
        self.answer: dict[str, Any] | None = None  # a whole answer, once it has been read
        self.pending: list[bytes] = []
        self.sink: Sink | None = None
        self.lane: Lane | None = None
        self._open_lane: Lane | None = None  # set while the bytes so far end with a whole event
        self.began_at = self._heard_at = self._loop.time()
        self.problem: Exception | str = ""  # why it broke, for the log
        # The engine may have closed an idle connection just now. If no byte comes on it, the request is sent again.
        self.resend = connection.used

    @property
    def heard_at(self) -> float:
        """Returns when the engine last sent its head or an event, or when reading resumed. Comments do not count."""
        if self._connection is not None and self._connection.shortcut is not None:
            self._heard_at = max(self._heard_at, self._connection.shortcut.heard_at)
        return self._heard_at

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    @property
    def done(self) -> bool:
        """Tells that the engine has sent [DONE]."""
        return self._done

    def close(self) -> None:
        """Cuts the connection, so that the engine ends its work. A complete answer keeps its connection."""
        self._over = True
        self._post = _to_nobody
        self.sink = self.lane = self._open_lane = None
        connection = self._connection
        if connection is None:
            return
        if self._done:  # the connection can be used again once the last bytes of the response have come
            connection.resume_reading()
            self._loop.call_later(_LAST_BYTES_S, self._cut)
        else:
            self._cut()

    def finish(self) -> None:
        """Ends the exchange, because the answer is at its end although the engine goes on."""
        self._over = True
        self.lane = self._open_lane = None
        self._cut()
        self._post((self, Happened.DONE))

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        self._heard_at = self._loop.time()  # the pause was no silence of the engine
        if self._connection is not None:
            self._connection.resume_reading()

    # The connection calls these.

    def head(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        if self._events and not may_be_events(headers):
            self._events = False
        self.resend = False
        self._heard_at = self._loop.time()

    def data(self, data: bytes) -> None:
        lane = self._open_lane
        if lane is not None:
            relayed = lane.relay(data)
            if relayed is not None:
                self._pass_on(lane, relayed)
                return
        if self._over:
            return
        if not self._events or self.status != 200:
            self._keep(data)
            return
        try:
            events = self._splitter.take(data)
        except EventTooLarge:
            self._broke(TooLarge("an event", min(self._largest, _LARGEST_EVENT)))
            return
        self._open_lane = self.lane if self._splitter.idle else None
        if not events:
            return
        if self.lane is not None:
            relayed = self.lane.relay(events)
            if relayed is not None:
                self._pass_on(self.lane, relayed)
                return
        self._take(payloads(events))

    def _keep(self, data: bytes) -> None:
        """Keeps a part of a whole body."""
        if self.status != 200:
            if len(self._body) < _LARGEST_REFUSAL:
                self._body += data
        elif len(self._body) + len(data) <= self._largest:
            self._body += data
        else:
            self._body.clear()
            self._broke(TooLarge("an answer", self._largest))

    def _pass_on(self, lane: Lane, relayed: bytes) -> None:
        self._heard_at = self._loop.time()
        if relayed:
            lane.write(relayed)
        if self._connection is not None and self._open_lane is not None:
            self._connection.offered = lane.shortcut()

    def _take(self, payloads: list[bytes]) -> None:
        if DONE in payloads:
            self._done = True
            self.lane = self._open_lane = None  # whatever follows is no part of the answer
            del payloads[payloads.index(DONE) :]
        if not payloads and not self._done:  # only comments, which a proxy before the engine may send
            return
        self._heard_at = self._loop.time()
        if self.sink is None:
            self.pending += payloads
            self._post((self, Happened.EVENTS))
        elif payloads:
            self.deliver(payloads)
        if self._done and not self._over:
            self._post((self, Happened.DONE))

    def end(self) -> None:
        self._detach_connection()
        if self._over or self._done:
            return
        if self._events and self.status == 200:
            self._broke("the stream ended without [DONE]")
        else:
            self._over = True
            self._post((self, Happened.WHOLE))

    def lost(self, cause: str) -> None:
        self._detach_connection()
        if not (self._over or self._done):
            self._broke(cause)

    def deliver(self, payloads: list[bytes]) -> None:
        """Passes payloads to the sink. What the sink refuses breaks the exchange."""
        try:
            if self.sink is not None:
                self.sink(payloads)
        except (EngineReportedError, BadChunk, NotReproducible) as problem:
            self._broke(problem)

    def _broke(self, problem: Exception | str) -> None:
        self._over = True
        self.lane = self._open_lane = None
        self.problem = problem if isinstance(problem, str) else without_frames(problem)
        self._done = False
        self._cut()
        self._post((self, Happened.BROKE))

    def _cut(self) -> None:
        connection = self._detach_connection()
        if connection is not None:
            connection.abort()

    def _detach_connection(self) -> Connection | None:
        self._heard_at = self.heard_at
        connection, self._connection = self._connection, None
        return connection


def _to_nobody(_: tuple[Exchange, Happened]) -> None:
    """Takes the place of the asker, who wants to hear no more."""
