"""There is one way to wait before an engine: with heart-beats, a deadline, and an end when it is in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cloudach_gateway.errors import GatewayError, ModelNotFound, UpstreamTimeout
from cloudach_gateway.proxy.placing.turn import Turn
from cloudach_gateway.proxy.placing.watch import Watch
from cloudach_gateway.record import RequestRecord
from cloudach_gateway.settings import Timeouts

pytestmark = pytest.mark.usefixtures("virtual_time")


class Client:
    paused_at = None

    def __init__(self) -> None:
        self.beats = 0

    def takes_nothing(self) -> bool:
        return False

    async def beat(self) -> None:
        self.beats += 1


class Door:
    """A gate that a test opens, or closes for good."""

    kind = "door"

    def __init__(self) -> None:
        self.found: str | None = None
        self.in_vain: GatewayError | None = None
        self.waiting: list[Callable[[], None]] = []

    def look(self) -> str | None:
        if self.in_vain is not None:
            raise self.in_vain
        return self.found

    @contextmanager
    def news(self, look_again: Callable[[], None]) -> Iterator[None]:
        self.waiting.append(look_again)
        try:
            yield
        finally:
            self.waiting.remove(look_again)

    def announce_change(self) -> None:
        for look_again in self.waiting:
            look_again()


class Scene:
    def __init__(self, *, total_s: float = 60.0) -> None:
        self.client, self.door = Client(), Door()
        self.clock = asyncio.get_running_loop().time
        self.record = RequestRecord("POST", "/")
        self.turn = Turn(Watch(Timeouts(heartbeat_s=1.0, total_s=total_s), self.client), self.record)

    def waits(self, seconds: float) -> asyncio.Task[str | None]:
        return asyncio.create_task(self.turn.at(self.door, self.clock() + seconds))


async def test_who_need_not_wait_is_not_announced() -> None:
    scene = Scene()
    scene.door.found = "an engine"
    assert await scene.turn.at(scene.door, 0.0) == "an engine"
    assert scene.client.beats == 0


async def test_it_beats_until_the_gate_opens() -> None:
    scene = Scene()
    task = scene.waits(30)
    await asyncio.sleep(10.5)
    assert 9 <= scene.client.beats <= 10
    scene.door.announce_change()
    await asyncio.sleep(0.1)
    assert not task.done(), "news are no opening"
    scene.door.found = "an engine"
    scene.door.announce_change()
    assert await task == "an engine"
    assert scene.door.waiting == []


async def test_it_ends_at_the_deadline() -> None:
    scene = Scene()
    began = scene.clock()
    assert await scene.waits(5) is None
    assert scene.clock() - began == pytest.approx(5, abs=0.1)
    assert scene.door.waiting == []


async def test_it_ends_at_once_when_it_is_in_vain() -> None:
    scene = Scene()
    began = scene.clock()
    task = scene.waits(50)
    await asyncio.sleep(2)
    scene.door.in_vain = ModelNotFound("m")
    scene.door.announce_change()
    with pytest.raises(ModelNotFound):
        await task
    assert scene.clock() - began == pytest.approx(2, abs=0.1)
    assert scene.door.waiting == []


async def test_neither_a_wait_nor_a_pause_outlasts_the_request() -> None:
    for wait in (lambda scene: scene.waits(50), lambda scene: scene.turn.pause(50)):
        scene = Scene(total_s=3)
        began = scene.clock()
        with pytest.raises(UpstreamTimeout):
            await wait(scene)
        assert scene.clock() - began == pytest.approx(3, abs=0.1)


async def test_each_wait_is_told_with_its_kind_however_it_ends() -> None:
    scene = Scene()
    scene.door.found = "an engine"
    await scene.turn.at(scene.door, 0.0)
    assert scene.record.waits == [], "it did not wait"
    scene.door.found = None
    assert await scene.waits(5) is None
    await scene.turn.pause(0.1)
    scene.door.in_vain = ModelNotFound("m")
    task = scene.waits(50)
    with pytest.raises(ModelNotFound):
        await task
    assert [wait.kind for wait in scene.record.waits] == ["door", "pause"], "what is in vain at once is no wait"
    assert all(wait.began_at <= wait.ended_at for wait in scene.record.waits)
