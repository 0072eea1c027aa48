"""Places a request: an engine is picked, and an attempt at it begun."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from ...catalog import ServedModel
from ...errors import UpstreamError
from ...record import Header
from ...settings import Timeouts
from ..engine.routes import Route
from . import failures
from .attempt import Attempt, AttemptObserver, Contender, PromptMeter
from .cause import Cause
from .failures import PlacementFailed
from .first_answer import Call, FirstAnswer
from .fleet import Engines
from .gates import AnyEngine, EngineOfItsOwn, InVain, Place, UntriedEngine
from .turn import Turn, TurnObserver
from .watch import Watch


def _never() -> None:
    return None


def _not_yet() -> bool:
    return False


class Observer(AttemptObserver, TurnObserver, Protocol):
    """The request's record hears of attempts and of waits before them."""


class EngineRequest(NamedTuple):
    """A client's request as engines get it.

    headers: those of each request to an engine, beside what HTTP and the engine's key need.
    fields: the body as a mapping, from which a continuation is made. failover: whether it may be continued.
    spent_s: of its whole time, before. patience_s: how long it waits for an engine while none can be reached.
    in_vain: why it is in vain to wait for an engine of the model; None while it is not.
    """

    model: ServedModel
    route: Route
    body: bytes
    headers: tuple[Header, ...]
    fields: dict[str, Any]
    failover: bool = True
    spent_s: float = 0.0
    patience_s: float = 0.0
    in_vain: InVain = _never

    @property
    def path(self) -> str:
        return self.route.path


class Placer:
    """`with placer:`, and within it `place` as often as needed. One attempt has to end before the next one begins.

    An attempt that still runs when the block is left ends then: nobody waits for it any more.
    """

    def __init__(
        self,
        engines: Engines,
        timeouts: Timeouts,
        request: EngineRequest,
        watch: Watch,
        meter: PromptMeter,
        observer: Observer,
    ) -> None:
        self._engines = engines
        self._timeouts = timeouts
        self._watch = watch
        self._contender = Contender(request.headers, meter, observer, owner=object())
        self._tried: list[str] = []
        self._gate = engines, request.model, self._tried, request.in_vain
        self.turn = Turn(watch, observer)
        self._entered = False
        self.last: Attempt | None = None  # the attempt that runs, or the one before

    def __enter__(self) -> Placer:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        if self.last is not None and self.last.cause is None:
            self.last.end(Cause.LET_GO)

    async def place(
        self,
        call: Call,
        *,
        until: float = -math.inf,
        alone_until: float | None = None,
        progressed: Callable[[], bool] = _not_yet,
    ) -> Attempt:
        """An attempt whose engine has begun to answer: `FirstAnswer` has come.

        until: how long the request waits for an engine while the model has none. alone_until: the request may be what
        ends engines, and waits so long for one where it is the only such request.

        Raises PlacementFailed, and GatewayError where there is no use in another attempt.
        """
        if not self._entered or (self.last is not None and self.last.cause is None):
            raise RuntimeError("outside of `with placer`, or the attempt before has not ended")
        alone = alone_until is not None
        place = await (self._any(until) if alone_until is None else self._of_its_own(alone_until))
        self._tried.append(place.upstream)
        attempt = self.last = Attempt(
            self._engines, *place, self._contender, self._watch.clock, progressed, in_quarantine=alone
        )
        try:
            await FirstAnswer(attempt, call, self._watch, self._timeouts).come()
        except PlacementFailed as failed:
            attempt.end(failed.cause)
            raise
        return attempt

    async def wait_for_untried(self, until: float) -> None:
        """Until the model has an upstream that this request has not been to, at most until then.

        Raises GatewayError where none will come.
        """
        await self.turn.at(UntriedEngine(*self._gate), until)

    async def _any(self, until: float) -> Place:
        """Raises PlacementFailed, and GatewayError where none will come."""
        place = await self.turn.at(AnyEngine(*self._gate), until)
        if place is None:
            raise failures.no_engine()
        return place

    async def _of_its_own(self, until: float) -> Place:
        """The quarantine of the engine is entered. Raises GatewayError."""
        place = await self.turn.at(EngineOfItsOwn(*self._gate), until)
        if place is None:
            raise UpstreamError("The model's engines are restarting.", cause="no engine for it alone")
        self._engines.quarantine.enter(place.model.shared or place.upstream)
        return place
