"""A request waits for a model that sleeps: how the wait ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from cloudach_gateway.api.waking import Waking
from cloudach_gateway.catalog import Absence, Catalog, Resource, ServedModel, Why
from cloudach_gateway.errors import ModelNotFound, ModelNotReady
from cloudach_gateway.record import RequestRecord
from cloudach_gateway.settings import Model, Timeouts

pytestmark = pytest.mark.usefixtures("virtual_time")

ASLEEP = replace(
    ServedModel.from_settings(Model(id="a", upstreams=("http://engine",))),
    absence=Absence(Why.ASLEEP),
    sleeps=True,
    resource=Resource("serving", "a"),
)
AWAKE = replace(ASLEEP, absence=None)


class Cluster:
    def __init__(self, expected_s: float | None = None) -> None:
        self.expected = expected_s
        self.lapse = False
        self.woken = 0
        self.awaiting = 0

    @contextmanager
    def awaited(self, model: ServedModel) -> Iterator[None]:
        self.woken += 1
        self.awaiting += 1
        try:
            yield
        finally:
            self.awaiting -= 1

    def in_use(self, model: ServedModel) -> Any:
        raise AssertionError("the caller's to say")

    def expected_s(self, model: ServedModel) -> float | None:
        return self.expected

    def lapsed(self, model: ServedModel) -> bool:
        return self.lapse

    def not_ready(self, model: ServedModel, *, waited_s: float = 0.0) -> ModelNotReady:
        return ModelNotReady(f"waited {waited_s:.1f}", retry_after_s=7)


class Sink:
    """A client that reads."""

    paused_at = None
    started = False

    def __init__(self) -> None:
        self.beats = 0

    def takes_nothing(self) -> bool:
        return False

    async def beat(self) -> None:
        self.started = True
        self.beats += 1


class Scene:
    def __init__(self, *, expected_s: float | None = None, stream: bool = True, **timeouts: float) -> None:
        self.cluster, self.sink = Cluster(expected_s), Sink()
        self.catalog = Catalog([])
        self.catalog.replace([ASLEEP])
        self.outcomes: list[tuple[str, str]] = []
        self.record = RequestRecord("POST", "/v1/chat/completions", stream=stream)
        times = Timeouts(heartbeat_s=0.02, **timeouts)
        self.waking = Waking(self.cluster, self.catalog, times, self, stream_s=0.3, whole_s=0.1, lapse_s=0.2)

    def waited(self, model: str, seconds: float, outcome: str) -> None:
        self.outcomes.append((model, outcome))

    def ready(self, model: ServedModel = ASLEEP) -> asyncio.Task[ServedModel]:
        return asyncio.create_task(self.waking.ready(model, self.record, self.sink))  # type: ignore[arg-type]


async def test_it_goes_on_once_the_model_can_be_asked() -> None:
    scene = Scene()
    waiting = scene.ready()
    await asyncio.sleep(0.1)
    scene.catalog.replace([replace(ASLEEP, absence=Absence(Why.STARTING))])
    await asyncio.sleep(0)
    assert not waiting.done()
    scene.catalog.replace([AWAKE])
    assert await waiting is AWAKE
    assert scene.outcomes == [("a", "ready")]
    assert scene.sink.beats > 0
    assert scene.record.heartbeats == scene.sink.beats
    assert scene.cluster.awaiting == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_it_does_not_wait_for_ever(stream: bool) -> None:
    scene = Scene(stream=stream)
    with pytest.raises(ModelNotReady, match=r"waited 0\.3" if stream else r"waited 0\.1"):
        await scene.ready()
    assert scene.outcomes == [("a", "not_ready")]
    assert scene.sink.started is stream, "a whole answer's error keeps its own status"


async def test_it_does_not_outlast_the_request() -> None:
    """503 with a Retry-After, and not 504 a moment later."""
    scene = Scene(total_s=0.1)
    with pytest.raises(ModelNotReady):
        await scene.ready()


async def test_where_it_is_known_to_be_in_vain_the_model_wakes_all_the_same() -> None:
    scene = Scene(expected_s=60)
    with pytest.raises(ModelNotReady, match=r"waited 0\.0"):
        await scene.ready()
    assert scene.cluster.woken == 1


@pytest.mark.parametrize("why", [Why.STUCK, Why.OFF])
async def test_it_ends_where_there_is_no_hope(why: Why) -> None:
    scene = Scene()
    waiting = scene.ready()
    await asyncio.sleep(0)
    scene.catalog.replace([replace(ASLEEP, absence=Absence(why))])
    with pytest.raises(ModelNotReady):
        await waiting


@pytest.mark.parametrize("models", [[], [replace(AWAKE, resource=Resource("other", "a"))]], ids=["deleted", "replaced"])
async def test_it_ends_when_the_model_is_gone(models: list[ServedModel]) -> None:
    """Another Model of that name is not the one that the key was checked for."""
    scene = Scene()
    waiting = scene.ready()
    await asyncio.sleep(0)
    scene.catalog.replace(models)
    with pytest.raises(ModelNotFound):
        await waiting


async def test_who_leaves_waits_no_more() -> None:
    scene = Scene()
    waiting = scene.ready()
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert scene.cluster.awaiting == 0
    assert scene.outcomes == [("a", "left")]


STEADY = replace(AWAKE, sleeps=False)
WITHOUT_PODS = replace(STEADY, absence=Absence(Why.NO_ENDPOINT))
STARTS = replace(STEADY, absence=Absence(Why.STARTING))


@pytest.mark.parametrize("model", [WITHOUT_PODS, replace(WITHOUT_PODS, sleeps=True)], ids=["steady", "may sleep"])
async def test_a_model_that_has_lost_its_last_pod_is_waited_for(model: ServedModel) -> None:
    """Whatever is known of how long it takes to start."""
    scene = Scene(expected_s=500)
    scene.catalog.replace([model])
    waiting = scene.ready(model)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert scene.sink.beats > 0
    back = replace(model, absence=None)
    scene.catalog.put([back])
    assert await waiting is back
    assert scene.outcomes == [("a", "ready")]


@pytest.mark.parametrize(("stream", "waited"), [(True, "0.2"), (False, "0.1")])
async def test_that_wait_has_a_bound_of_its_own(stream: bool, waited: str) -> None:
    scene = Scene(stream=stream)
    scene.catalog.replace([WITHOUT_PODS])
    with pytest.raises(ModelNotReady, match=waited):
        await scene.ready(WITHOUT_PODS)


async def test_a_model_that_starts_is_waited_for_if_it_was_there_a_moment_ago() -> None:
    """As when all of its pods were evicted. One that starts for the first time takes minutes."""
    scene = Scene()
    scene.catalog.replace([STARTS])
    assert not scene.waking.can_wait(STARTS)
    scene.cluster.lapse = True
    assert scene.waking.can_wait(STARTS)
    waiting = scene.ready(STARTS)
    await asyncio.sleep(0.1)
    scene.catalog.put([WITHOUT_PODS])  # the controller is ahead of the pods
    await asyncio.sleep(0.05)
    assert not waiting.done()
    scene.catalog.put([STEADY])
    assert await waiting is STEADY


async def test_a_wake_ends_with_the_first_pod_and_not_before() -> None:
    scene = Scene()
    waiting = scene.ready()
    for absence in (Absence(Why.STARTING), Absence(Why.NO_ENDPOINT)):
        await asyncio.sleep(0.08)
        scene.catalog.put([replace(ASLEEP, absence=absence)])
    await asyncio.sleep(0.08)
    assert not waiting.done()
    scene.catalog.put([AWAKE])
    assert await waiting is AWAKE


@pytest.mark.parametrize("why", [Why.STUCK, Why.OFF, Why.ASLEEP])
def test_who_is_not_waited_for(why: Why) -> None:
    assert not Scene().waking.can_wait(replace(STEADY, absence=Absence(why)))


def test_how_long_an_engine_is_looked_for_at_most() -> None:
    waking = Scene().waking
    assert waking.patience_s(STEADY, stream=True) == 0.2
    assert waking.patience_s(STEADY, stream=False) == 0.1
    waking = replace(waking, whole_s=45, lapse_s=60)
    assert waking.patience_s(STEADY, stream=False, waited_s=6) == 39, "proxies count from its start"
    assert waking.patience_s(STEADY, stream=False, waited_s=44) == 5, "a woken Model may refuse the first connection"
    assert waking.patience_s(STEADY, stream=True, waited_s=250) == 5
    assert replace(waking, lapse_s=0).patience_s(STEADY, stream=True, waited_s=250) == 0, "it is switched off"
    assert waking.patience_s(replace(STEADY, resource=None), stream=True) == 0
