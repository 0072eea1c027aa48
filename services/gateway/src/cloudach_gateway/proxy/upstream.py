"""Pooled HTTP connections to engines; aiohttp's errors end here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from openai_wire.sse import EventSplitter, EventTooLarge

from ..catalog import ServedModel
from ..errors import GatewayError, UpstreamError
from ..settings import Timeouts
from .balance import Balancer
from .upstream_errors import from_error_event, from_response, may_retry

Result = TypeVar("Result")

_LONGEST_REFUSAL = 16 * 1024 * 1024
_REFUSAL_S = 5.0


class StreamBroke(Exception):
    """The engine's stream ended in a way that is not its end. The text is for the log."""


@dataclass(slots=True)
class EngineStream:
    """An engine's event stream of which the first events have arrived."""

    upstream: str
    response: aiohttp.ClientResponse
    splitter: EventSplitter
    first: list[bytes]

    async def next(self) -> list[bytes] | None:
        """The payloads that came since the last call, at least one; None at the end of the bytes.

        Safe to cancel: nothing is lost. Raises StreamBroke.
        """
        try:
            while True:
                data = await self.response.content.readany()
                if not data:
                    return None
                payloads = self.splitter.feed(data)
                if payloads:
                    return payloads
        except (aiohttp.ClientError, OSError) as error:
            raise StreamBroke(f"{self.upstream}: {error!r}") from error
        except EventTooLarge as error:
            raise StreamBroke(f"{self.upstream}: {error}") from error


class Engines:
    """Sends requests to engines, with further attempts where nothing was generated yet."""

    def __init__(
        self,
        timeouts: Timeouts,
        balancer: Balancer,
        *,
        on_retry: Callable[[str, str], None] = lambda model, cause: None,
    ) -> None:
        self._timeouts = timeouts
        self._balancer = balancer
        self._on_retry = on_retry
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=10),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_s, connect=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**16,
            max_line_size=2**15,
            max_field_size=2**15,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def stream(self, model: ServedModel, path: str, body: bytes, *, request_id: str) -> EngineStream:
        """Opens a stream and waits for its first events. Raises GatewayError."""

        async def first_events(upstream: str, response: aiohttp.ClientResponse) -> EngineStream:
            stream = EngineStream(upstream, response, EventSplitter(), [])
            payloads = await stream.next()
            if payloads is None:
                raise StreamBroke(f"{upstream}: the stream ended before its first event")
            if payloads[0].startswith(b'{"error"'):  # the engine refused after its 200: nothing was generated
                raise _Failed(
                    from_error_event(payloads[0], upstream=upstream), may_retry=False, upstream_at_fault=False
                )
            stream.first = payloads
            return stream

        return await self._attempts(model, path, body, request_id, first_events)

    async def whole(self, model: ServedModel, path: str, body: bytes, *, request_id: str) -> bytes:
        """The whole body of a 200 answer. Raises GatewayError."""

        async def read(upstream: str, response: aiohttp.ClientResponse) -> bytes:
            try:
                data = await response.read()
            except (aiohttp.ClientError, OSError) as error:
                raise StreamBroke(f"{upstream}: {error!r}") from error
            self._release(upstream, response, failed=False)
            return data

        return await self._attempts(model, path, body, request_id, read)

    def end(self, stream: EngineStream, *, failed: bool = False) -> None:
        """Ends a stream that `stream()` gave. One that was not read to its end is cut: the engine then aborts it."""
        self._release(stream.upstream, stream.response, failed=failed)

    def _release(self, upstream: str, response: aiohttp.ClientResponse | None, *, failed: bool) -> None:
        if response is not None:
            if failed or not response.content.at_eof():
                response.close()
            else:
                response.release()
        self._balancer.ended(upstream, failed=failed)

    async def _attempts(
        self,
        model: ServedModel,
        path: str,
        body: bytes,
        request_id: str,
        use: Callable[[str, aiohttp.ClientResponse], Awaitable[Result]],
    ) -> Result:
        tried: list[str] = []
        while True:
            upstream = self._balancer.pick(model.upstreams, tried=tried)
            tried.append(upstream)
            try:
                return await self._attempt(model, upstream, path, body, request_id, use)
            except _Failed as failed:
                if not failed.may_retry or len(tried) > self._timeouts.retries:
                    raise failed.error from failed
                self._on_retry(model.id, failed.error.cause or "")
            # Many requests may have failed with this one: they should not come back together.
            await asyncio.sleep(random.uniform(0.5, 1.5) * 0.05 * 2 ** (len(tried) - 1))

    async def _attempt(
        self,
        model: ServedModel,
        upstream: str,
        path: str,
        body: bytes,
        request_id: str,
        use: Callable[[str, aiohttp.ClientResponse], Awaitable[Result]],
    ) -> Result:
        if self._session is None:
            raise RuntimeError("Engines.start() was not called")
        headers = {"content-type": "application/json", "x-request-id": request_id}
        if model.api_key:
            headers["authorization"] = f"Bearer {model.api_key}"
        response: aiohttp.ClientResponse | None = None
        self._balancer.began(upstream)
        try:
            response = await self._session.post(upstream + path, data=body, headers=headers)
            if response.status != 200:
                refusal = await _refusal(response)
                raise _Failed(
                    from_response(response.status, refusal, upstream=upstream, path=path),
                    may_retry=may_retry(response.status, refusal),
                    upstream_at_fault=response.status >= 500,
                )
            return await use(upstream, response)
        except _Failed as failed:
            self._release(upstream, response, failed=failed.upstream_at_fault)
            raise
        except (aiohttp.ClientError, OSError, StreamBroke) as error:
            # Nothing reached the client yet, and an engine aborts what it runs for a lost connection: trying again is
            # safe whether or not this attempt had begun.
            self._release(upstream, response, failed=True)
            cause = str(error) if isinstance(error, StreamBroke) else f"{upstream}: {error!r}"
            failure = UpstreamError("The model's engine could not be reached.")
            failure.cause = cause
            raise _Failed(failure, may_retry=True, upstream_at_fault=True) from error
        except BaseException:
            self._release(upstream, response, failed=False)
            raise


async def _refusal(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer that is not 200, as far as it comes soon; vLLM's may hold the whole request."""
    parts = bytearray()
    try:
        async with asyncio.timeout(_REFUSAL_S):
            while len(parts) < _LONGEST_REFUSAL and (data := await response.content.readany()):
                parts += data
    except TimeoutError:
        pass
    return bytes(parts)


class _Failed(Exception):
    """One attempt came to nothing, before any byte went to the client."""

    def __init__(self, error: GatewayError, *, may_retry: bool, upstream_at_fault: bool) -> None:
        super().__init__(error.cause)
        self.error = error
        self.may_retry = may_retry
        self.upstream_at_fault = upstream_at_fault
