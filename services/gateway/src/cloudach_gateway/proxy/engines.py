"""The engines of all models: which one is asked, over which connection, and how each has fared."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from ..catalog import ServedModel
from .balance import Balancer
from .exchange import Exchange, Happened
from .placements import Placements
from .pool import Origin, Pool

Post = Callable[[tuple[Exchange, Happened]], None]


class Unreachable(Exception):
    """No connection to an engine. The text is for the log."""


class Engines:
    """One a process. Every exchange that `open` gave is given back with `close`."""

    def __init__(self, *, connect_s: float, balancer: Balancer | None = None) -> None:
        self._balancer = balancer or Balancer()
        self._connect_s = connect_s
        self._pool: Pool | None = None
        self.placements = Placements()
        self._quarantine = asyncio.Lock()

    def start(self) -> None:
        self._pool = Pool(connect_s=self._connect_s)

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.close()

    @property
    def connections(self) -> int:
        return 0 if self._pool is None else self._pool.size

    @contextlib.asynccontextmanager
    async def quarantine(self, *, needed: bool) -> AsyncIterator[None]:
        """Those who may have killed an engine go on one at a time: so the next death names its cause."""
        if not needed:
            yield
            return
        async with self._quarantine:
            yield

    def pick(self, model: ServedModel, tried: list[str]) -> str:
        return self._balancer.pick(model.upstreams, tried=tried)

    async def open(
        self,
        model: ServedModel,
        upstream: str,
        path: str,
        body: bytes,
        *,
        request_id: str,
        post: Post,
        events: bool,
        fresh: bool = False,
    ) -> Exchange:
        """Sends the request. fresh: not over a connection that may be stale. Raises Unreachable."""
        if self._pool is None:
            raise RuntimeError("Engines.start() was not called")
        origin = Origin.of(upstream)
        connection = None if fresh else self._pool.idle(origin)
        if connection is None:
            try:
                connection = await self._pool.connect(origin)
            except OSError as error:
                self._balancer.refused(upstream)
                raise Unreachable(f"{upstream}: {error or type(error).__name__}") from error
        exchange = Exchange(upstream, connection, post, events=events)
        self._balancer.began(upstream)
        self.placements.began(upstream)
        authorization = b"authorization: Bearer %b\r\n" % model.api_key.encode() if model.api_key else b""
        connection.send(
            b"POST %b%b HTTP/1.1\r\nhost: %b\r\n%bcontent-type: application/json\r\nx-request-id: %b\r\n"
            b"content-length: %d\r\n\r\n%b"
            % (
                origin.prefix.encode(),
                path.encode(),
                origin.authority,
                authorization,
                request_id.encode(),
                len(body),
                body,
            ),
            exchange,
        )
        return exchange

    def close(self, exchange: Exchange, *, failed: bool = False, progressed: bool = True) -> None:
        """failed: by the engine's own fault. progressed: it had generated something."""
        exchange.close()
        self._balancer.ended(exchange.upstream, failed=failed)
        if not progressed:
            self.placements.ended(exchange.upstream, lost=failed, now=asyncio.get_running_loop().time())
