"""The three ways an answer reaches a client: as a stream, gathered from a stream, or whole as the engine sent it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from openai_wire.errors import error_frame
from openai_wire.requests import ChatRequest, CompletionRequest
from openai_wire.sse import KEEP_ALIVE_FRAME

from ..catalog import ServedModel
from ..errors import GatewayError, UpstreamError, UpstreamTimeout
from ..settings import Timeouts
from .chunk import BadChunk, EngineReportedError
from .collect import Collector
from .conversation import Conversation
from .rewrite import ClientView, StreamRewriter
from .tally import Tally
from .upstream import Engines


class Client(Protocol):
    """Where a stream goes. The first write sends the 200 and its headers; until then an error can have its status."""

    @property
    def started(self) -> bool: ...

    async def write(self, data: bytes) -> None:
        """Returns once the transport can take more."""


class Progress(Protocol):
    """Who wants to know how the answer gets on."""

    def first_token(self) -> None: ...

    def heartbeat(self) -> None: ...

    def complete(self) -> None:
        """The engine has said all it had to say; what is left is to deliver it."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    model: ServedModel
    path: str
    body: bytes
    request_id: str


class Relay:
    def __init__(self, engines: Engines, timeouts: Timeouts) -> None:
        self._engines = engines
        self._timeouts = timeouts

    async def stream(
        self, request: EngineRequest, view: ClientView, tally: Tally, client: Client, progress: Progress
    ) -> GatewayError | None:
        """Relays a stream to its end. What goes wrong before the first byte is raised as a GatewayError; what goes
        wrong later is told to the client in an error frame and returned."""

        async def keep_alive() -> None:
            progress.heartbeat()
            await client.write(KEEP_ALIVE_FRAME)

        rewriter = StreamRewriter(view, tally)
        conversation = Conversation(self._engines, self._timeouts, request.model, on_silence=keep_alive)
        waiting = True
        try:
            payloads = await conversation.open(request.path, request.body, request_id=request.request_id)
            while payloads is not None:
                frames: list[bytes] = []
                try:
                    for payload in payloads:
                        frames.append(rewriter.feed(payload))
                finally:  # what came before an error frame goes out before it
                    if waiting and rewriter.choices_seen:
                        waiting = False
                        progress.first_token()
                    if any(frames):
                        await client.write(b"".join(frames))
                payloads = await conversation.next()
            progress.complete()
            await client.write(rewriter.finish())
            await conversation.finish()
        except (GatewayError, EngineReportedError, BadChunk) as problem:
            error = _as_gateway_error(problem)
            if not client.started:
                raise error from problem
            conversation.close()
            await client.write(error_frame(error.message, type=error.type, param=error.param, code=error.code))
            return error
        finally:
            conversation.close()
        return None

    async def gathered(
        self, request: EngineRequest, asked: ChatRequest | CompletionRequest, tally: Tally, progress: Progress
    ) -> bytes:
        """The JSON answer put together from the engine's stream. Raises GatewayError."""
        collector = Collector(asked, tally)
        conversation = Conversation(self._engines, self._timeouts, request.model)
        waiting = True
        try:
            payloads = await conversation.open(request.path, request.body, request_id=request.request_id)
            while payloads is not None:
                for payload in payloads:
                    collector.feed(payload)
                if waiting and collector.choices_seen:
                    waiting = False
                    progress.first_token()
                payloads = await conversation.next()
            progress.complete()
            await conversation.finish()
            return collector.answer()
        except (EngineReportedError, BadChunk) as problem:
            raise _as_gateway_error(problem) from problem
        finally:
            conversation.close()

    async def whole(self, request: EngineRequest, shown_model: str, tally: Tally) -> bytes:
        """The engine's own JSON answer, with the model's name as the client used it. Raises GatewayError."""
        try:
            async with asyncio.timeout(self._timeouts.total_s):
                data = await self._engines.whole(
                    request.model, request.path, request.body, request_id=request.request_id
                )
        except TimeoutError as error:
            raise UpstreamTimeout(
                "The model did not answer in time.", cause=f"no whole answer after {self._timeouts.total_s} s"
            ) from error
        try:
            answer: Any = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise UpstreamError("The model's engine failed to answer.", cause=f"no JSON: {len(data)} bytes") from error
        if not isinstance(answer, dict):
            raise UpstreamError("The model's engine failed to answer.", cause=f"JSON, but no object: {len(data)} bytes")
        if isinstance(answer.get("usage"), dict):
            tally.take_usage(answer["usage"], final=True)
        if "model" in answer:
            answer["model"] = shown_model
        return orjson.dumps(answer)


def _as_gateway_error(problem: GatewayError | EngineReportedError | BadChunk) -> GatewayError:
    if isinstance(problem, GatewayError):
        return problem
    return UpstreamError("The model's engine broke off its answer.", cause=str(problem))
