"""The three ways an answer reaches a client: as a stream, gathered from a stream, or whole as the engine sent it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import orjson

from ..errors import GatewayError, InternalError, InvalidRequest, UpstreamError
from ..settings import Failover, Timeouts
from .answers import Answers, Gathered, Out, Streamed
from .conversation import Conversation, Observer
from .engine.chunk import BadChunk
from .listening import SlowReader
from .placing.fleet import Engines
from .placing.placer import EngineRequest
from .stream.tally import Tally

_log = logging.getLogger("cloudach.gateway.relay")


ForClient = Callable[[dict[str, Any]], bytes]
"""Makes the client's form of an answer that came in one piece. Raises BadChunk."""


class Client(Out, Protocol):
    """The client of a stream. `start` sends the 200 and its headers. Until then an error can have its own status.

    `write` never waits. The relay writes more than a little only while `paused_at` is None.

    paused_at: since when the client takes nothing, in the loop's time. None while it takes what is written.
    """

    @property
    def started(self) -> bool: ...

    @property
    def paused_at(self) -> float | None: ...

    async def beat(self) -> None:
        """Sends a heart-beat."""

    async def finish(self, data: bytes) -> None:
        """Sends the last bytes. Raises SlowReader."""

    async def fail(self, error: GatewayError) -> None:
        """Sends an error as the last bytes. Raises SlowReader."""

    def cut(self) -> None:
        """Closes the client's connection without last bytes."""

    def on_news(self, flow_changed: Callable[[bool], None], gone: Callable[[], None]) -> None:
        """Has `flow_changed(paused)` called from now on, and `gone` when the client has closed its connection."""

    def takes_nothing(self) -> bool:
        """Returns whether the client has taken nothing since it was paused, or since this was asked.

        If it has taken something, `paused_at` becomes now.
        """


class Progress(Observer, Protocol):
    """Hears how the answer goes on."""

    def first_token(self) -> None: ...

    def heartbeat(self) -> None: ...

    def left_fast_path(self, reason: str) -> None:
        """Hears why chunks of the answer have to be parsed one by one, which is slower."""

    def failover_report(self) -> list[dict[str, Any]]:
        """Returns the failovers so far, for the client."""

    def complete(self) -> None:
        """Hears that the engine has sent the whole answer, which only has to be delivered now."""


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
        answers: Answers,
        tally: Tally,
        client: Client,
        progress: Progress,
        *,
        report_failovers: bool = False,
    ) -> GatewayError | None:
        """Relays a stream to its end. Raises SlowReader.

        An error before the first byte is raised as a GatewayError. A later error goes to the client in an error frame,
        and is returned.
        """
        report = progress.failover_report if report_failovers else list
        slow = progress.left_fast_path
        rewriter = answers.rewriter(tally, on_begun=progress.first_token, on_slow_path=slow, report=report)
        streamed = Streamed(rewriter, answers.view, tally, client)
        reader = _HeartbeatClient(client, progress)
        conversation = self._conversation(request, progress, tally, reader)
        try:
            await conversation.stream(streamed)
            last = streamed.last_words()
            progress.complete()
            await client.finish(last)
        except asyncio.CancelledError:
            if client.paused_at is not None:  # last words would not reach it
                client.cut()
            raise
        except GatewayError as error:
            if not client.started:
                raise
            await client.fail(error)
            return error
        except Exception as fault:
            if not client.started or isinstance(fault, SlowReader):
                raise
            _log.exception("unhandled error in a stream")
            failure = InternalError("Something went wrong on our side.", cause=repr(fault)[:200])
            await client.fail(failure)
            return failure
        return None

    async def gathered(self, request: EngineRequest, answers: Answers, tally: Tally, progress: Progress) -> bytes:
        """Returns the JSON answer, put together from the engine's stream. Raises GatewayError."""
        speaks, largest, slow = request.model.speaks, self._engines.largest_answer, progress.left_fast_path
        collecting = partial(answers.collector, tally, own_fields=speaks.own_fields, largest=largest, on_slow_path=slow)
        gathered = Gathered(collecting, answers.view, tally, progress.first_token)
        # The client waits for the whole answer anyway.
        patient = not speaks.streams_calls and bool(request.fields.get("tools") or request.fields.get("functions"))
        conversation = self._conversation(request, progress, tally, patient=patient)
        try:
            whole = await conversation.stream(gathered)
        except InvalidRequest as refusal:
            if not (patient and "stream" in refusal.message.lower()):
                raise
            answer = await self.whole(_unstreamed(request), answers.for_client, tally, progress)
            progress.complete()
            return answer
        try:
            answer = gathered.collector.answer() if whole is None else _counted(whole, answers.for_client, tally)
        except BadChunk as problem:
            raise UpstreamError("The model's engine failed to answer.", cause=str(problem)) from problem
        progress.complete()
        return answer

    async def whole(self, request: EngineRequest, for_client: ForClient, tally: Tally, progress: Progress) -> bytes:
        """Returns the client's form of the engine's own JSON answer. Raises GatewayError."""
        conversation = self._conversation(request, progress, tally)
        answer = await conversation.whole()
        try:
            return _counted(answer, for_client, tally)
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
        """patient: the engine may be silent as long as the whole request may take."""
        timeouts = self._patient if patient else self._timeouts
        return Conversation(self._engines, timeouts, self._failover, request, progress, tally, reader=reader)


def _counted(answer: dict[str, Any], for_client: ForClient, tally: Tally) -> bytes:
    """The client's form of an answer, whose usage is taken down. Raises BadChunk."""
    if isinstance(answer.get("usage"), dict):
        tally.take_usage(answer["usage"])
    return for_client(answer)


def _unstreamed(request: EngineRequest) -> EngineRequest:
    """Returns the request without its wish for a stream, for engines that refuse to stream tool calls."""
    fields = {name: value for name, value in request.fields.items() if name not in ("stream", "stream_options")}
    return request._replace(body=orjson.dumps(fields), fields=fields)


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
        await self._client.beat()
