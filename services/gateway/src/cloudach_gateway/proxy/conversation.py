"""One request's stream from an engine, watched: silence becomes heart-beats, and too much of it an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from openai_wire.sse import DONE

from ..catalog import ServedModel
from ..errors import GatewayError, UpstreamError, UpstreamTimeout
from ..settings import Timeouts
from .alarm import Alarm
from .upstream import Engines, EngineStream, StreamBroke

OnSilence = Callable[[], Awaitable[None]]

_LAST_BYTES_S = 1.0


class Conversation:
    """`open()`, then `next()` until it gives None, then `finish()`; `close()` in any case."""

    def __init__(
        self, engines: Engines, timeouts: Timeouts, model: ServedModel, *, on_silence: OnSilence | None = None
    ) -> None:
        self._engines = engines
        self._timeouts = timeouts
        self._model = model
        self._on_silence = on_silence
        self._stream: EngineStream | None = None
        self._healthy = True
        self._done = False
        self._clock = asyncio.get_running_loop().time
        self._ends_at = self._clock() + timeouts.total_s
        self._beat_at = self._clock() + timeouts.heartbeat_s
        self._alarm = Alarm(self._ends_at)

    async def open(self, path: str, body: bytes, *, request_id: str) -> list[bytes] | None:
        """The payloads of the engine's first events, without [DONE]. Raises GatewayError."""
        self._stream = await self._open(path, body, request_id)
        return self._until_done(self._stream.first)

    async def next(self) -> list[bytes] | None:
        """The payloads of the next events, as many as came together, without [DONE]; None once that was seen.

        Raises UpstreamTimeout past the total time, UpstreamError for a stream that breaks, stalls or ends without
        [DONE].
        """
        if self._done or self._stream is None:
            return None
        try:
            payloads = await self._next(self._stream)
        except StreamBroke as error:
            raise self._broken(str(error)) from error
        if payloads is None:
            raise self._broken(f"{self._stream.upstream}: the stream ended without [DONE]")
        return self._until_done(payloads)

    async def finish(self) -> None:
        """After [DONE]: reads the few bytes that close the response, so that its connection can be used again."""
        if self._stream is not None and self._done:
            try:
                async with asyncio.timeout(_LAST_BYTES_S):
                    while await self._stream.next() is not None:
                        pass
            except (TimeoutError, StreamBroke):
                pass
        self.close()

    def close(self) -> None:
        """Gives the connection back, or cuts it, which ends the engine's work, if the stream is not at its end."""
        self._alarm.off()
        if self._stream is not None:
            self._engines.end(self._stream, failed=not self._healthy)
            self._stream = None

    async def _open(self, path: str, body: bytes, request_id: str) -> EngineStream:
        opening = asyncio.ensure_future(self._engines.stream(self._model, path, body, request_id=request_id))
        give_up_at = min(self._clock() + self._timeouts.first_token_s, self._ends_at)
        try:
            while True:
                wake_at = give_up_at if self._on_silence is None else min(give_up_at, self._beat_at)
                await asyncio.wait({opening}, timeout=max(0.0, wake_at - self._clock()))
                if opening.done():
                    return opening.result()
                if self._clock() >= give_up_at:
                    raise UpstreamTimeout(
                        "The model did not begin to answer in time.",
                        cause=f"{self._model.id}: no first token after {self._timeouts.first_token_s} s",
                    )
                await self._beat()
        except BaseException:
            opening.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:  # it opened in this very moment
                self._engines.end(opening.result())
            raise

    async def _next(self, stream: EngineStream) -> list[bytes] | None:
        stalls_at = min(self._clock() + self._timeouts.between_tokens_s, self._ends_at)
        while True:
            self._alarm.due = stalls_at if self._on_silence is None else min(stalls_at, self._beat_at)
            try:
                return await self._alarm.wait(stream.next())
            except TimeoutError:
                now = self._clock()
            if now >= self._ends_at:
                self._healthy = False
                raise UpstreamTimeout(
                    "The answer took longer than a request may take.", cause=f"over {self._timeouts.total_s} s in total"
                )
            if now >= stalls_at:
                raise StreamBroke(f"{stream.upstream}: no token for {self._timeouts.between_tokens_s} s")
            await self._beat()

    async def _beat(self) -> None:
        self._beat_at = self._clock() + self._timeouts.heartbeat_s
        if self._on_silence is not None:
            await self._on_silence()

    def _until_done(self, payloads: list[bytes]) -> list[bytes] | None:
        self._beat_at = self._clock() + self._timeouts.heartbeat_s
        if DONE not in payloads:
            return payloads
        self._done = True
        return payloads[: payloads.index(DONE)] or None

    def _broken(self, cause: str) -> GatewayError:
        self._healthy = False
        return UpstreamError("The model's engine broke off its answer.", cause=cause)
