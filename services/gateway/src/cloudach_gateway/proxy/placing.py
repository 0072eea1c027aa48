"""One placement of a request: an engine is picked, the request sent, and its first events or whole answer awaited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..catalog import ServedModel
from ..errors import GatewayError, UpstreamError, UpstreamTimeout
from ..settings import Timeouts
from .engines import Engines, Unreachable
from .exchange import Exchange, Happened
from .failover import Cause
from .upstream_errors import from_error_event, from_response, may_retry, names_dead_engine
from .watch import Watch

_REFUSAL_S = 5.0


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """`fields`: the body as a mapping, from which a continuation is made. failover: whether it may be continued."""

    model: ServedModel
    path: str
    body: bytes
    request_id: str
    fields: dict[str, Any] = field(default_factory=dict)
    failover: bool = True


class PlacementFailed(Exception):
    """It came to nothing. cause: None when another engine would say the same. may_retry: also before the first byte,
    where an error may still have its own status."""

    def __init__(self, error: GatewayError, *, cause: Cause | None, may_retry: bool) -> None:
        super().__init__(error.cause)
        self.error = error
        self.cause = cause
        self.may_retry = may_retry


class Placer:
    """`place` as often as needed; `end` gives the current exchange back."""

    def __init__(self, engines: Engines, timeouts: Timeouts, request: EngineRequest, watch: Watch) -> None:
        self._engines = engines
        self._timeouts = timeouts
        self._request = request
        self._watch = watch
        self._tried: list[str] = []
        self._progressed = False
        self.exchange: Exchange | None = None

    async def place(self, path: str, body: bytes, *, events: bool) -> Exchange:
        """Raises PlacementFailed, UpstreamTimeout."""
        upstream = self._engines.pick(self._request.model, self._tried)
        self._tried.append(upstream)
        exchange = await self._open(upstream, path, body, events, fresh=False)
        happened = await self._begun(exchange, events)
        if happened is Happened.BROKE and exchange.resend:
            # The engine had closed this idle connection, which says nothing about the engine.
            self.end(failed=False)
            exchange = await self._open(upstream, path, body, events, fresh=True)
            happened = await self._begun(exchange, events)
        if happened is Happened.BROKE:
            self.end(failed=True)
            error = _unreachable(f"{upstream}: {exchange.problem}")
            raise PlacementFailed(error, cause=Cause.LOST, may_retry=True)
        if exchange.status != 200:
            raise self._refused(exchange, path)
        if events and exchange.pending[0].startswith(b'{"error"'):
            raise self._refused_late(exchange)
        self._progressed = True
        self._engines.placements.progressed(upstream)
        return exchange

    def alone(self) -> bool:
        """Whether, of the requests that were starting at the engine just lost, this was the only one."""
        return self._engines.placements.alone(self._tried[-1], self._watch.clock())

    def end(self, *, failed: bool) -> None:
        """failed: by the engine's own fault."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._engines.close(exchange, failed=failed, progressed=self._progressed)

    async def _open(self, upstream: str, path: str, body: bytes, events: bool, *, fresh: bool) -> Exchange:
        self._progressed = False
        try:
            self.exchange = await self._engines.open(
                self._request.model,
                upstream,
                path,
                body,
                request_id=self._request.request_id,
                post=self._watch.post,
                events=events,
                fresh=fresh,
            )
        except Unreachable as error:
            raise PlacementFailed(_unreachable(str(error)), cause=Cause.REFUSED, may_retry=True) from error
        return self.exchange

    async def _begun(self, exchange: Exchange, events: bool) -> Happened:
        limit = self._timeouts.first_token_s if events else self._timeouts.total_s
        due = self._watch.clock() + limit
        while True:
            refused = exchange.status not in (0, 200)
            happened = await self._watch.event(exchange, min(due, exchange.heard_at + _REFUSAL_S) if refused else due)
            if happened is not None:
                return happened
            now = self._watch.clock()
            if refused and now >= exchange.heard_at + _REFUSAL_S:
                return Happened.WHOLE  # its text does not come
            if now >= due:
                raise UpstreamTimeout(
                    "The model did not begin to answer in time.",
                    cause=f"{exchange.upstream}: no first token after {limit} s",
                )

    def _refused(self, exchange: Exchange, path: str) -> PlacementFailed:
        status, body = exchange.status, exchange.body
        self.end(failed=status >= 500)
        error = from_response(status, body, upstream=exchange.upstream, path=path)
        if names_dead_engine(body):
            return PlacementFailed(error, cause=Cause.ENGINE_ERROR, may_retry=True)
        again = may_retry(status, body)
        transient = again or status in (404, 429)
        return PlacementFailed(error, cause=Cause.REFUSED if transient else None, may_retry=again)

    def _refused_late(self, exchange: Exchange) -> PlacementFailed:
        """The engine refused after its 200: nothing was generated."""
        dead = names_dead_engine(exchange.pending[0])
        self.end(failed=dead)
        error = from_error_event(exchange.pending[0], upstream=exchange.upstream)
        return PlacementFailed(error, cause=Cause.ENGINE_ERROR if dead else None, may_retry=dead)


def _unreachable(cause: str) -> UpstreamError:
    error = UpstreamError("The model's engine could not be reached.")
    error.cause = cause
    return error
