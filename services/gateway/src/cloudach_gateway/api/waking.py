"""A request for a model that sleeps or has lost its last pod waits for it. A stream gets heart-beats meanwhile.

A model that sleeps is woken by such a request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from ..catalog import Catalog, ServedModel, Why
from ..client.sink import Outlet
from ..errors import GatewayError, ModelNotReady
from ..proxy.placing.turn import Turn
from ..proxy.placing.watch import Watch
from ..record import RequestRecord
from ..settings import Timeouts

_SHARE = 0.9  # of a request's whole time: past that it would be a timeout
_LEAST_S = 5.0


class Cluster(Protocol):
    """Requests need this of the Models of a cluster. `catalog.cluster` provides it."""

    def in_use(self, model: ServedModel) -> AbstractContextManager[None]:
        """Keeps the model from falling asleep while the block runs. The block stands around a request's whole life."""

    def awaited(self, model: ServedModel) -> AbstractContextManager[None]:
        """The model is woken, and a request waits for it meanwhile."""

    def expected_s(self, model: ServedModel) -> float | None:
        """How many seconds the model takes to wake; None if that is not known."""

    def lapsed(self, model: ServedModel) -> bool:
        """True if the model could be asked until a moment ago."""

    def not_ready(self, model: ServedModel, *, waited_s: float = 0.0) -> ModelNotReady: ...


class Observer(Protocol):
    def waited(self, model: str, seconds: float, outcome: str) -> None:
        """The outcome is `ready`, `not_ready` or `left`."""


@dataclass(frozen=True, slots=True)
class Waking:
    """It says how long a request waits for its model, and waits.

    All times are in seconds. A stream waits `stream_s`, a whole answer `whole_s`. Neither waits longer than `lapse_s`
    for a model that has lost its last pod.
    """

    cluster: Cluster
    catalog: Catalog
    timeouts: Timeouts
    observer: Observer
    stream_s: float
    whole_s: float
    lapse_s: float

    def can_wait(self, model: ServedModel) -> bool:
        """True if a request waits for the model, which cannot be asked now."""
        absence = model.absence
        if absence is None:
            return False
        if absence.why is Why.NO_ENDPOINT or (model.sleeps and absence.why in (Why.ASLEEP, Why.STARTING)):
            return True
        return absence.why is Why.STARTING and self.cluster.lapsed(model)

    def in_use(self, model: ServedModel) -> AbstractContextManager[None]:
        """It stands around a request's whole life."""
        return self.cluster.in_use(model) if model.sleeps else nullcontext()

    def patience_s(self, model: ServedModel, *, stream: bool, waited_s: float = 0.0) -> float:
        """How long a request waits while no pod of the model can be reached. waited_s: how long it has waited before.

        A little is left in any case: a Service lets connections through some moments after its pods are said to be
        ready.
        """
        if model.resource is None:
            return 0.0
        bound_s = min(self.lapse_s, self.timeouts.total_s * _SHARE, math.inf if stream else self.whole_s)
        return max(bound_s - waited_s, min(bound_s, _LEAST_S))

    def in_vain(self, model: ServedModel) -> GatewayError | None:
        """Why it is in vain to wait for the model any longer: it was deleted, switched off, or is stuck."""
        try:
            ModelAwake(self, model).look()
        except GatewayError as error:
            return error
        return None

    async def ready(self, model: ServedModel, record: RequestRecord, sink: Outlet) -> ServedModel:
        """The model, once it can be asked. Raises ModelNotReady, ModelNotFound, UpstreamTimeout."""
        watch = Watch(self.timeouts, _HeartbeatClient(sink, record) if record.stream else None)
        patience_s = min(self._bound_s(model, stream=record.stream), self.timeouts.total_s * _SHARE)
        gate = ModelAwake(self, model, watch.clock)
        # Only of a start it is known how long it takes.
        expected_s = self.cluster.expected_s(model) if self._starts(model) else None
        if expected_s is not None and expected_s > patience_s:
            patience_s = 0.0
        outcome = "left"
        try:
            found = await Turn(watch, record).at(gate, gate.began + patience_s)
            outcome = "not_ready" if found is None else "ready"
        except GatewayError:
            outcome = "not_ready"
            raise
        finally:
            self.observer.waited(model.id, gate.waited_s, outcome)
        if found is None:
            raise self.cluster.not_ready(self.find(model) or model, waited_s=gate.waited_s)
        return found

    async def ready_unless_failed(self, model: ServedModel, record: RequestRecord, sink: Outlet) -> ServedModel | None:
        """The model, once it can be asked. None: it cannot, and an error frame has ended a stream that had heart-beats.

        Raises ModelNotReady, ModelNotFound, UpstreamTimeout before the first byte.
        """
        if model.absence is None:
            return model
        try:
            return await self.ready(model, record, sink)
        except GatewayError as error:
            if not sink.started:
                raise
            record.end_with(error)
            await sink.fail(error)
            return None

    def _bound_s(self, model: ServedModel, *, stream: bool) -> float:
        longest_s = self.stream_s if stream else self.whole_s
        return longest_s if model.sleeps else min(longest_s, self.lapse_s)

    def _starts(self, model: ServedModel) -> bool:
        why = model.absence.why if model.absence is not None else None
        return why is Why.ASLEEP or (why is Why.STARTING and not self.cluster.lapsed(model))

    def find(self, model: ServedModel) -> ServedModel | None:
        """The Model as it is now. Another Model of that name is not the one that the key was checked for."""
        found = self.catalog.find(model.id)
        return found if found is not None and found.resource == model.resource else None


class ModelAwake:
    """The gate before a model that sleeps, or has lost its last pod. Who waits at it wakes the model."""

    kind = "wake"

    def __init__(self, waking: Waking, model: ServedModel, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._waking = waking
        self._model = model
        self._clock = clock
        self.began = clock()

    @property
    def waited_s(self) -> float:
        return self._clock() - self.began

    def look(self) -> ServedModel | None:
        """Raises ModelNotFound, ModelNotReady."""
        waking, found = self._waking, self._waking.find(self._model)
        if found is None:
            raise waking.catalog.missing(self._model.id)
        if found.absence is None:
            return found
        if not waking.can_wait(found):
            raise waking.cluster.not_ready(found, waited_s=self.waited_s)
        return None

    @contextmanager
    def news(self, look_again: Callable[[], None]) -> Iterator[None]:
        waking = self._waking
        with waking.cluster.awaited(self._model), waking.catalog.on_change(self._model, look_again):
            yield


class _HeartbeatClient:
    """A client whose stream gets heart-beats while its model wakes."""

    def __init__(self, sink: Outlet, record: RequestRecord) -> None:
        self._sink = sink
        self._record = record
        self.takes_nothing = sink.takes_nothing

    @property
    def paused_at(self) -> float | None:
        return self._sink.paused_at

    async def beat(self) -> None:
        self._record.heartbeat()
        await self._sink.beat()
