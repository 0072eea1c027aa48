"""An engine's answer is rewritten on its way to the client as it streams, or gathered.

The ports below are what the relay needs of an endpoint. They are asked for once per stream; while it runs, the engine's
bytes go to the rewriter or the collector directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from ..errors import UpstreamError
from .engine.chunk import BadChunk, EngineReportedError, parse
from .engine.exchange import Lane
from .stream.client_view import ClientView, UsageForm
from .stream.express import Express, Framed, Gathering, Shape
from .stream.form import RunningForm, head_of
from .stream.slow_path import SlowPath
from .stream.tally import Tally
from .stream.transcript import Transcript


class Rewriter(Protocol):
    """Turns the engine's events into the client's."""

    @property
    def shape(self) -> Shape | None:
        """Returns the form of the running chunks. It is None when only this object can edit them."""

    def relay(self, events: bytes) -> bytes | None:
        """Returns the client's bytes for whole events if all are running chunks. After None, `feed` must take them."""

    def feed(self, payload: bytes) -> bytes:
        """Returns the client's bytes for one event. Raises EngineReportedError, BadChunk."""

    def finish(self) -> bytes:
        """Returns the stream's last bytes. Raises BadChunk."""


class Collecting(Protocol):
    """Gathers the engine's events into one JSON answer."""

    form: RunningForm | None
    texts: list[bytes]

    @property
    def choices_seen(self) -> bool: ...

    def relay(self, events: bytes) -> bytes | None:
        """Takes whole events if all are running chunks, and returns b"". After None, `feed` must take them."""

    def feed(self, payload: bytes) -> None:
        """Adds the payload of one event to the answer. Raises EngineReportedError, BadChunk, TooLarge."""

    def answer(self) -> bytes:
        """Returns the gathered JSON answer for the client. Raises BadChunk."""


class Answers(Protocol):
    """Makes the client's answer from the engine's events. One object serves one request."""

    @property
    def view(self) -> ClientView: ...

    def rewriter(
        self,
        tally: Tally,
        *,
        on_begun: Callable[[], None],
        on_slow_path: Callable[[SlowPath], None],
        report: Callable[[], list[dict[str, Any]]],
    ) -> Rewriter:
        """report: the failovers that the client wants to read of."""

    def collector(
        self, tally: Tally, *, own_fields: bool, largest: int, on_slow_path: Callable[[SlowPath], None]
    ) -> Collecting:
        """own_fields: the answer has all of vLLM's fields. largest: the bytes that it may have."""

    def for_client(self, answer: dict[str, Any]) -> bytes:
        """Returns the client's form of an answer that came whole although events were asked for. Raises BadChunk."""


class Out(Protocol):
    """Takes a stream's bytes."""

    @property
    def framed(self) -> Framed:
        """Returns the writer that takes finished HTTP chunks. It may be used after the first `write`."""

    async def start(self) -> None: ...

    def write(self, data: bytes) -> None: ...


_CHUNK_OF_ITS_OWN = (UsageForm.EXTRA_CHUNK, UsageForm.EVERY_CHUNK)


class Streamed:
    """A stream on its way to the client."""

    takes_whole = False

    def __init__(self, rewriter: Rewriter, view: ClientView, tally: Tally, client: Out) -> None:
        self._rewriter = rewriter
        self._view = view
        self._tally = tally
        self._client = client
        self._clock = asyncio.get_running_loop().time
        self._taken: Express | None = None

    @property
    def lane(self) -> Lane:
        return Lane(self._rewriter.relay, self._client.write, self._express)

    @property
    def transcript(self) -> Transcript:
        return self._tally.transcript

    @property
    def ids_shown(self) -> bool:
        return self._view.token_ids

    async def begin(self) -> None:
        await self._client.start()

    def feed(self, payloads: list[bytes]) -> None:
        if len(payloads) == 1:
            data = self._rewriter.feed(payloads[0])
            if data:
                self._client.write(data)
            return
        frames: list[bytes] = []
        try:
            for payload in payloads:
                frames.append(self._rewriter.feed(payload))
        finally:  # what came before an error frame goes out before it
            data = b"".join(frames)
            if data:
                self._client.write(data)

    def start_over(self) -> bool:
        return False

    def _express(self) -> Express | None:
        shape = self._rewriter.shape
        if shape is None:
            return None
        if self._taken is None or self._taken.shape is not shape:
            self._taken = Express(shape, self.transcript.running, self._client.framed, self._clock)
        return self._taken

    def last_words(self) -> bytes:
        """Returns the last bytes of the stream. Raises UpstreamError."""
        try:
            self._state_usage()
            return self._rewriter.finish()
        except (BadChunk, EngineReportedError) as problem:
            raise UpstreamError("The model's engine broke off its answer.", cause=str(problem)) from problem

    def _state_usage(self) -> None:
        """States usage as counted, where the client waits for it and the engine that would have stated it is gone."""
        if self._tally.usage is None and self.transcript.recent and self._view.usage in _CHUNK_OF_ITS_OWN:
            chunk = parse(self.transcript.payloads()[-1])
            self.feed([orjson.dumps({**head_of(chunk), "choices": [], "usage": self._tally.statement()})])


class Gathered:
    """An answer that is put together here. `collecting` makes a collector, and another if the answer begins anew."""

    takes_whole = True

    def __init__(
        self, collecting: Callable[[], Collecting], view: ClientView, tally: Tally, on_begun: Callable[[], None]
    ) -> None:
        self._collecting = collecting
        self._view = view
        self._tally = tally
        self._on_begun = on_begun
        self._waiting = True
        self._clock = asyncio.get_running_loop().time
        self._taken: Gathering | None = None
        self.collector = collecting()

    @property
    def lane(self) -> Lane:
        return Lane(self.collector.relay, _nowhere, self._gathering)

    @property
    def transcript(self) -> Transcript:
        return self._tally.transcript

    @property
    def ids_shown(self) -> bool:
        return self._view.token_ids

    async def begin(self) -> None:
        pass

    def feed(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            self.collector.feed(payload)
        if self._waiting and self.collector.choices_seen:
            self._waiting = False
            self._on_begun()

    def _gathering(self) -> Gathering | None:
        form = self.collector.form
        if form is None:
            return None
        if self._taken is None or self._taken.form is not form:
            self._taken = Gathering(form, self.transcript.running, self.collector.texts, self._clock)
        return self._taken

    def start_over(self) -> bool:
        self._tally.forget_answer()
        self.collector = self._collecting()
        return True


def _nowhere(_: bytes) -> None:
    """The collector has taken it already."""
