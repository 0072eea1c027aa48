"""The three ways an answer reaches a client: as a stream, gathered from a stream, or whole as the engine sent it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import orjson
from openai_wire.requests import ChatRequest, CompletionRequest
from openai_wire.sse import KEEP_ALIVE_FRAME

from ..errors import GatewayError, InternalError, InvalidRequest, UpstreamError
from ..settings import Failover, Timeouts
from .conversation import Conversation, Observer, SlowReader
from .engine.chunk import BadChunk, EngineReportedError, parse
from .engine.exchange import Lane
from .engine.whole_answer import for_client
from .placing.fleet import Engines
from .placing.placer import EngineRequest
from .stream.collect import Collector
from .stream.express import Express, Framed, Gathering
from .stream.form import head_of
from .stream.rewrite import ClientView, StreamRewriter, UsageForm
from .stream.tally import Tally
from .stream.transcript import Transcript

_log = logging.getLogger("cloudach.gateway.relay")


class Client(Protocol):
    """Where a stream goes. `start` sends the 200 and its headers; until then an error can have its status.

    paused_at: since when it takes nothing (the loop's time), None while it does.
    """

    @property
    def started(self) -> bool: ...

    @property
    def paused_at(self) -> float | None: ...

    @property
    def framed(self) -> Framed:
        """After the first `write`: what takes HTTP chunks as they go out."""

    async def start(self) -> None: ...

    def write(self, data: bytes) -> None:
        """After `start`. Never waits; more than a little is written only while `paused_at` is None."""

    async def finish(self, data: bytes) -> None:
        """The last bytes."""

    def cut(self) -> None:
        """Closes its connection without any."""

    def on_news(self, flow_changed: Callable[[bool], None], gone: Callable[[], None]) -> None:
        """From now on `flow_changed(paused)` is called, and `gone` when it has closed its connection."""

    def takes_nothing(self) -> bool:
        """Whether it has not taken anything since it was paused, or since this was asked; if it has, `paused_at` is
        now."""


class Progress(Observer, Protocol):
    """Who wants to know how the answer gets on."""

    def first_token(self) -> None: ...

    def heartbeat(self) -> None: ...

    def left_fast_path(self, reason: str) -> None:
        """The answer's chunks have to be parsed one by one, because of this."""

    def failover_report(self) -> list[dict[str, Any]]:
        """Of the failovers so far, for the client."""

    def complete(self) -> None:
        """The engine has said all it had to say; what is left is to deliver it."""


class Relay:
    def __init__(self, engines: Engines, timeouts: Timeouts, failover: Failover) -> None:
        self._engines = engines
        self._timeouts = timeouts
        self._patient = timeouts.model_copy(
            update={"first_token_s": timeouts.total_s, "between_tokens_s": timeouts.total_s}
        )
        self._failover = failover

    async def stream(
        self,
        request: EngineRequest,
        view: ClientView,
        tally: Tally,
        client: Client,
        progress: Progress,
        *,
        report_failovers: bool = False,
    ) -> GatewayError | None:
        """Relays a stream to its end. What goes wrong before the first byte is raised as a GatewayError; what goes
        wrong later is told to the client in an error frame and returned. Raises SlowReader."""
        report = progress.failover_report if report_failovers else list
        slow = progress.left_fast_path
        rewriter = StreamRewriter(view, tally, on_begun=progress.first_token, on_slow_path=slow, report=report)
        streamed = _Streamed(rewriter, client)
        reader = _HeartbeatClient(client, progress)
        conversation = self._conversation(request, progress, tally, reader)
        try:
            await conversation.stream(streamed)
            last = streamed.last_words()
            progress.complete()
            await self._finish(client, last)
        except asyncio.CancelledError:
            if client.paused_at is not None:  # last words would not reach it
                client.cut()
            raise
        except GatewayError as error:
            if not client.started:
                raise
            conversation.close()
            await self._finish(client, error.frame())
            return error
        except Exception as fault:
            if not client.started or isinstance(fault, SlowReader):
                raise
            _log.exception("unhandled in a stream")
            conversation.close()
            failure = InternalError("Something went wrong on our side.", cause=repr(fault)[:200])
            await self._finish(client, failure.frame())
            return failure
        finally:
            conversation.close()
        return None

    async def _finish(self, client: Client, data: bytes) -> None:
        """Raises SlowReader."""
        if client.paused_at is None:  # then it does not wait
            await client.finish(data)
            return
        try:
            async with asyncio.timeout_at(client.paused_at + self._timeouts.slow_reader_s):
                await client.finish(data)
        except TimeoutError:
            raise SlowReader from None

    async def gathered(
        self, request: EngineRequest, asked: ChatRequest | CompletionRequest, tally: Tally, progress: Progress
    ) -> bytes:
        """The JSON answer put together from the engine's stream. Raises GatewayError."""
        speaks, largest, slow = request.model.speaks, self._engines.largest_answer, progress.left_fast_path
        collecting = partial(Collector, asked, tally, vllm=speaks.own_fields, largest=largest, on_slow_path=slow)
        gathered = _Gathered(collecting, asked, tally, progress)
        # The client waits for the whole answer anyway.
        patient = not speaks.streams_calls and bool(request.fields.get("tools") or request.fields.get("functions"))
        conversation = self._conversation(request, progress, tally, patient=patient)
        try:
            whole = await conversation.stream(gathered)
        except InvalidRequest as refusal:
            if not (patient and "stream" in refusal.message.lower()):
                raise
            answer = await self.whole(_unstreamed(request), asked.model, tally, progress)
            progress.complete()
            return answer
        finally:
            conversation.close()
        try:
            answer = gathered.collector.answer() if whole is None else _told_at_once(whole, asked, tally)
        except BadChunk as problem:
            raise UpstreamError("The model's engine failed to answer.", cause=str(problem)) from problem
        progress.complete()
        return answer

    async def whole(self, request: EngineRequest, shown_model: str, tally: Tally, progress: Progress) -> bytes:
        """The engine's own JSON answer, with the model's name as the client used it. Raises GatewayError."""
        conversation = self._conversation(request, progress, tally)
        try:
            answer = await conversation.whole()
        finally:
            conversation.close()
        if isinstance(answer.get("usage"), dict):
            tally.take_usage(answer["usage"])
        try:
            return for_client(answer, shown_model)
        except BadChunk as problem:
            raise UpstreamError("The model's engine failed to answer.", cause=str(problem)) from problem

    def _conversation(
        self,
        request: EngineRequest,
        progress: Progress,
        tally: Tally,
        reader: _HeartbeatClient | None = None,
        *,
        patient: bool = False,
    ) -> Conversation:
        """patient: as long as a request may take the engine may be silent."""
        timeouts = self._patient if patient else self._timeouts
        return Conversation(self._engines, timeouts, self._failover, request, progress, tally, reader=reader)


_CHUNK_OF_ITS_OWN = (UsageForm.EXTRA_CHUNK, UsageForm.EVERY_CHUNK)


class _Streamed:
    """A stream on its way to the client."""

    def __init__(self, rewriter: StreamRewriter, client: Client) -> None:
        self.rewriter = rewriter
        self._client = client
        self._clock = asyncio.get_running_loop().time
        self._taken: Express | None = None

    @property
    def lane(self) -> Lane:
        return Lane(self.rewriter.relay, self._client.write, self._express)

    @property
    def transcript(self) -> Transcript:
        return self.rewriter.tally.transcript

    @property
    def ids_shown(self) -> bool:
        return self.rewriter.view.token_ids

    @property
    def takes_whole(self) -> bool:
        return False

    async def begin(self) -> None:
        await self._client.start()

    def feed(self, payloads: list[bytes]) -> None:
        if len(payloads) == 1:
            data = self.rewriter.feed(payloads[0])
            if data:
                self._client.write(data)
            return
        frames: list[bytes] = []
        try:
            for payload in payloads:
                frames.append(self.rewriter.feed(payload))
        finally:  # what came before an error frame goes out before it
            data = b"".join(frames)
            if data:
                self._client.write(data)

    def start_over(self) -> bool:
        return False

    def _express(self) -> Express | None:
        shape = self.rewriter.shape
        if shape is None:
            return None
        if self._taken is None or self._taken.shape is not shape:
            self._taken = Express(shape, self.transcript.running, self._client.framed, self._clock)
        return self._taken

    def last_words(self) -> bytes:
        """The end of the stream. Raises UpstreamError."""
        try:
            self._state_usage()
            return self.rewriter.finish()
        except (BadChunk, EngineReportedError) as problem:
            raise UpstreamError("The model's engine broke off its answer.", cause=str(problem)) from problem

    def _state_usage(self) -> None:
        """As counted, where the engine that would have stated it had gone, and the client waits for it."""
        tally = self.rewriter.tally
        if tally.usage is None and tally.transcript.recent and self.rewriter.view.usage in _CHUNK_OF_ITS_OWN:
            chunk = parse(tally.transcript.payloads()[-1])
            self.feed([orjson.dumps({**head_of(chunk), "choices": [], "usage": tally.statement()})])


class _Gathered:
    """An answer that is put together here."""

    def __init__(
        self,
        collecting: Callable[[], Collector],
        asked: ChatRequest | CompletionRequest,
        tally: Tally,
        progress: Progress,
    ) -> None:
        self._collecting = collecting
        self._asked = asked
        self._tally = tally
        self._progress = progress
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
        return bool(self._asked.return_token_ids)

    @property
    def takes_whole(self) -> bool:
        return True

    async def begin(self) -> None:
        pass

    def feed(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            self.collector.feed(payload)
        if self._waiting and self.collector.choices_seen:
            self._waiting = False
            self._progress.first_token()

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


def _unstreamed(request: EngineRequest) -> EngineRequest:
    """For engines that refuse to stream tool calls."""
    fields = {name: value for name, value in request.fields.items() if name not in ("stream", "stream_options")}
    return replace(request, body=orjson.dumps(fields), fields=fields)


def _told_at_once(answer: dict[str, Any], asked: ChatRequest | CompletionRequest, tally: Tally) -> bytes:
    """The whole answer of an engine that was asked for a stream. Raises BadChunk."""
    if isinstance(answer.get("usage"), dict):
        tally.take_usage(answer["usage"])
    if not asked.return_token_ids:  # we asked for them
        for holder in (answer, *answer["choices"]):
            holder.pop("token_ids", None)
            holder.pop("prompt_token_ids", None)
    return for_client(answer, asked.model)


def _nowhere(_: bytes) -> None:
    """It has been taken already."""


class _HeartbeatClient:
    """A client whose stream gets heart-beats while it waits for an engine."""

    def __init__(self, client: Client, progress: Progress) -> None:
        self._client = client
        self._progress = progress
        self.on_news = client.on_news
        self.takes_nothing = client.takes_nothing

    @property
    def paused_at(self) -> float | None:
        return self._client.paused_at

    async def beat(self) -> None:
        self._progress.heartbeat()
        await self._client.start()
        self._client.write(KEEP_ALIVE_FRAME)
