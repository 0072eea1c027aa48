"""Places a request: an engine is picked, and an attempt at it begun."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

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
from .watch import Watch


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A client's request as engines get it.

    headers: those of each request to an engine, beside what HTTP and the engine's key need.
    fields: the body as a mapping, from which a continuation is made. failover: whether it may be continued.
    spent_s: of its whole time, before. patience_s: how long it waits for an engine while none can be reached.
    """

    model: ServedModel
    route: Route
    body: bytes
    headers: tuple[Header, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    failover: bool = True
    spent_s: float = 0.0
    patience_s: float = 0.0

    @property
    def path(self) -> str:
        return self.route.path


def _not_yet() -> bool:
    return False


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
        observer: AttemptObserver,
    ) -> None:
        self._engines = engines
        self._timeouts = timeouts
        self._request = request
        self._watch = watch
        self._contender = Contender(request.headers, meter, observer)
        self._model = request.model  # as it was when this was last looked up
        self._tried: list[str] = []
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

        Raises PlacementFailed, UpstreamError, UpstreamTimeout.
        """
        if not self._entered or (self.last is not None and self.last.cause is None):
            raise RuntimeError("outside of `with placer`, or the attempt before has not ended")
        if alone_until is None:
            upstream = await self._any(until)
        else:
            upstream = await self._apart_from_others(alone_until)
        self._tried.append(upstream)
        attempt = self.last = Attempt(
            self._engines,
            self._model,
            upstream,
            self._contender,
            self._watch.clock,
            progressed,
            in_quarantine=alone_until is not None,
        )
        try:
            await FirstAnswer(attempt, call, self._watch, self._timeouts).come()
        except PlacementFailed as failed:
            attempt.end(failed.cause)
            raise
        return attempt

    @property
    def untried(self) -> bool:
        """True if the model has an upstream now that this request has not been to."""
        return not {*self._engines.directory.current(self._request.model).upstreams} <= {*self._tried}

    async def _any(self, until: float) -> str:
        picked: list[str] = []

        def found() -> bool:
            self._model = self._engines.directory.current(self._request.model)
            upstream = self._engines.pick(self._model, self._tried)
            if upstream is not None:
                picked.append(upstream)
            return upstream is not None

        if not found():
            with self._engines.directory.telling(self._request.model, self._watch.look_again):
                if not await self._watch.holds(found, until):
                    raise failures.no_engine()
        return picked[-1]

    async def _apart_from_others(self, until: float) -> str:
        picked: list[str] = []

        def found() -> bool:
            self._model = self._engines.directory.current(self._request.model)
            upstream = self._engines.pick_for_one_alone(self._model, self._tried)
            if upstream is not None:
                picked.append(upstream)
            return upstream is not None

        look_again = self._watch.look_again
        with (
            self._engines.quarantine.waiting(look_again),
            self._engines.directory.telling(self._request.model, look_again),
        ):
            if not await self._watch.holds(found, until):
                raise UpstreamError("The model's engines are restarting.", cause="no engine for it alone")
        self._engines.quarantine.enter(self._model.shared or picked[-1])
        return picked[-1]
