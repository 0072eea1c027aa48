"""The engines of all models: which is asked, over which connection, and how each has fared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import orjson

from ...catalog import ServedModel
from ...record import Header
from ..engine.chunk import LARGEST_ANSWER
from ..engine.exchange import Exchange, Happened
from ..engine.pool import Origin, Pool
from .balance import Balancer
from .context_lengths import ContextLengths
from .mailbox import Mailbox
from .quarantine import Quarantine
from .simultaneous_breaks import SimultaneousBreaks
from .suspects import Suspects

Post = Callable[[tuple[Exchange, Happened]], None]


class Unreachable(Exception):
    """No connection to an engine could be made. The text is for the log."""


class Directory(Protocol):
    """The directory knows where models are now. The catalog is one."""

    def current(self, model: ServedModel) -> ServedModel: ...

    def on_change(self, model: ServedModel, changed: Callable[[], None]) -> AbstractContextManager[None]:
        """`changed` is called after each change of this model, while the block runs."""


class Engines:
    """Opens requests at engines, and remembers which engines broke. Each process has one such object.

    Every exchange that `open` returned has to be given back with `close`.
    """

    def __init__(
        self,
        *,
        connect_s: float,
        directory: Directory | None = None,
        balancer: Balancer | None = None,
        largest_answer: int = LARGEST_ANSWER,
    ) -> None:
        """largest_answer: the most bytes of an answer that comes in one piece."""
        self.directory: Directory = directory or _Fixed()
        self.largest_answer = largest_answer
        self._balancer = balancer or Balancer()
        self._connect_s = connect_s
        self._pool: Pool | None = None
        self.suspects = Suspects()
        self.quarantine = Quarantine()
        self.simultaneous_breaks = SimultaneousBreaks()
        self.context_lengths = ContextLengths(self._models_at, patience_s=connect_s)

    def start(self) -> None:
        self._pool = Pool(connect_s=self._connect_s)

    def stop(self) -> None:
        self.context_lengths.stop()
        if self._pool is not None:
            self._pool.close()

    @property
    def connections(self) -> int:
        return 0 if self._pool is None else self._pool.size

    def left(self, upstreams: Collection[str]) -> None:
        """The connections to these upstreams get no new requests."""
        if self._pool is not None:
            for upstream in upstreams:
                self._pool.leave(Origin.of(upstream))

    def pick(self, model: ServedModel, tried: Collection[str]) -> str | None:
        """The upstream that a request goes to, None if there is none. Engines with a quarantine come last."""
        upstreams: Collection[str] = model.upstreams
        if not upstreams:
            return None
        if model.shared is None:
            upstreams = self.quarantine.empty(upstreams) or upstreams
        return self._balancer.pick(upstreams, tried=tried)

    def pick_for_one_alone(self, model: ServedModel, tried: Collection[str]) -> str | None:
        """Returns an upstream for a suspect, if possible one without another suspect. None if none has room."""
        upstreams: Collection[str] = model.upstreams
        if model.shared is None:
            upstreams = self.quarantine.open(upstreams)
            upstreams = [one for one in upstreams if not self.suspects.any_suspect(one)] or upstreams
        elif not self.quarantine.open((model.shared,)):
            return None
        return self._balancer.pick(upstreams, tried=tried) if upstreams else None

    async def open(
        self,
        model: ServedModel,
        upstream: str,
        path: str,
        body: bytes,
        *,
        headers: Iterable[Header],
        post: Post,
        events: bool,
        fresh: bool = False,
    ) -> Exchange:
        """Sends the request. Raises Unreachable.

        The headers are those beside what HTTP and the engine's key need. fresh: over a new connection, because an idle
        one may be stale.
        """
        self.context_lengths.learn(model)
        self._balancer.connects(upstream)
        try:
            exchange = await self._send(model, upstream, path, body, headers, post, events=events, fresh=fresh)
        except Unreachable:
            self._balancer.refused(upstream)
            raise
        except BaseException:
            self._balancer.given_up(upstream)
            raise
        self._balancer.began(upstream)
        return exchange

    def close(self, exchange: Exchange, *, failed: bool) -> None:
        """Gives the connection back. failed: the engine is at fault."""
        exchange.close()
        self._balancer.ended(exchange.upstream, failed=failed)

    async def _send(
        self,
        model: ServedModel,
        upstream: str,
        path: str,
        body: bytes | None,
        headers: Iterable[Header],
        post: Post,
        *,
        events: bool,
        fresh: bool,
    ) -> Exchange:
        """Sends a POST, or a GET where there is no body. Raises Unreachable."""
        if self._pool is None:
            raise RuntimeError("Engines.start() was not called")
        origin = Origin.of(upstream)
        connection = None if fresh else self._pool.idle(origin, young_s=model.connection_s)
        if connection is None:
            try:
                connection = await self._pool.connect(origin)
            except OSError as error:
                raise Unreachable(f"{upstream}: {error or type(error).__name__}") from error
        exchange = Exchange(upstream, connection, post, events=events, largest=self.largest_answer)
        connection.send(_request(origin, path, body, headers, model.api_key), exchange)
        return exchange

    async def detokenized(self, model: ServedModel, question: bytes) -> str | None:
        """The text of token ids, as one of the engines tells it; None if that engine does not."""
        model = self.directory.current(model)
        upstream = self.pick(model, ())
        answer = None if upstream is None else await self._ask(model, upstream, "/detokenize", question)
        try:
            text = None if answer is None else orjson.loads(answer)["prompt"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        return text if isinstance(text, str) else None

    async def _models_at(self, model: ServedModel, upstream: str) -> bytes | None:
        return await self._ask(model, upstream, "/v1/models", None)

    async def _ask(self, model: ServedModel, upstream: str, path: str, body: bytes | None) -> bytes | None:
        """A short answer, None for anything but a 200. It does not tell how the engine fares, because vLLM's HTTP
        server outlives the engine."""
        mail: Mailbox[tuple[Exchange, Happened]] = Mailbox()
        try:
            exchange = await self._send(model, upstream, path, body, (), mail.post, events=False, fresh=True)
        except Unreachable:
            return None
        try:
            happened = await mail.get(asyncio.get_running_loop().time() + self._connect_s)
            answered = happened is not None and happened[1] is Happened.WHOLE and exchange.status == 200
            return exchange.body if answered else None
        finally:
            exchange.close()


class _Fixed:
    """A directory of models that stay where they are."""

    def current(self, model: ServedModel) -> ServedModel:
        return model

    def on_change(self, model: ServedModel, changed: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


def _request(origin: Origin, path: str, body: bytes | None, headers: Iterable[Header], api_key: str | None) -> bytes:
    return b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%b%b%b\r\n%b" % (
        b"GET" if body is None else b"POST",
        origin.prefix.encode(),
        path.encode(),
        origin.authority,
        b"authorization: Bearer %b\r\n" % api_key.encode("latin-1") if api_key else b"",
        b"".join([b"%b: %b\r\n" % header for header in headers]),
        b"" if body is None else b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
        body or b"",
    )
