"""The engines of all models: which one is asked, over which connection, and how each has fared."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import orjson

from ..catalog import ServedModel
from .balance import Balancer
from .exchange import Exchange, Happened
from .mailbox import Mailbox
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
        self._context_lengths: dict[str, int] = {}

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
        body: bytes | None,
        *,
        request_id: str,
        post: Post,
        events: bool,
        fresh: bool = False,
    ) -> Exchange:
        """Sends the request: a POST, or a GET without a body. fresh: not over a connection that may be stale.

        Raises Unreachable.
        """
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
        connection.send(_request(origin, path, body, request_id, model.api_key), exchange)
        return exchange

    async def context_length(self, model: ServedModel) -> int | None:
        """Tokens of prompt and answer together, from the settings or else from an engine's own list of models."""
        if model.max_model_len is not None or model.id in self._context_lengths:
            return model.max_model_len or self._context_lengths[model.id]
        for upstream in model.upstreams:
            found = await self._listed_length(model, upstream)
            if found is not None:
                self._context_lengths[model.id] = found
                return found
        return None

    async def _listed_length(self, model: ServedModel, upstream: str) -> int | None:
        mail: Mailbox[tuple[Exchange, Happened]] = Mailbox()
        try:
            exchange = await self.open(
                model, upstream, "/v1/models", None, request_id="", post=mail.post, events=False, fresh=True
            )
        except Unreachable:
            return None
        happened = await mail.get(asyncio.get_running_loop().time() + self._connect_s)
        self.close(exchange)
        self.placements.progressed(upstream)
        if happened is None or happened[1] is not Happened.WHOLE or exchange.status != 200:
            return None
        return listed_length(exchange.body, model.upstream_model)

    def close(self, exchange: Exchange, *, failed: bool = False, progressed: bool = True) -> None:
        """failed: by the engine's own fault. progressed: it had generated something."""
        exchange.close()
        self._balancer.ended(exchange.upstream, failed=failed)
        if not progressed:
            self.placements.ended(exchange.upstream, lost=failed, now=asyncio.get_running_loop().time())


def _request(origin: Origin, path: str, body: bytes | None, request_id: str, api_key: str | None) -> bytes:
    return b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%bx-request-id: %b\r\n%b\r\n%b" % (
        b"GET" if body is None else b"POST",
        origin.prefix.encode(),
        path.encode(),
        origin.authority,
        b"authorization: Bearer %b\r\n" % api_key.encode() if api_key else b"",
        request_id.encode(),
        b"" if body is None else b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
        body or b"",
    )


def listed_length(models: bytes, name: str) -> int | None:
    """`max_model_len` of a model in vLLM's /v1/models."""
    try:
        for model in orjson.loads(models)["data"]:
            length = model.get("max_model_len")
            if model.get("id") == name and isinstance(length, int) and length > 0:
                return length
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        pass
    return None
