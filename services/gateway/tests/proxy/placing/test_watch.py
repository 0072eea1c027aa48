"""Waiting for an engine: heart-beats in silence, and an end of patience."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest
from cloudach_gateway.errors import UpstreamTimeout
from cloudach_gateway.proxy.engine.exchange import Exchange, Happened
from cloudach_gateway.proxy.placing.watch import Watch
from cloudach_gateway.settings import Timeouts

pytestmark = pytest.mark.usefixtures("virtual_time")


class Reader:
    def __init__(self) -> None:
        self.paused_at: float | None = None
        self.beats: list[float] = []

    def takes_nothing(self) -> bool:
        return True

    async def beat(self) -> None:
        self.beats.append(now())


class Engine:
    """As much of an exchange as is looked at."""

    def __init__(self) -> None:
        self.heard_at = now()

    def speaks(self) -> None:
        self.heard_at = now()


def now() -> float:
    return asyncio.get_running_loop().time()


def watch(reader: Reader | None, **timeouts: float) -> Watch:
    return Watch(Timeouts(**{"heartbeat_s": 0.1, "total_s": 60.0, **timeouts}), reader)


async def event(one: Watch, engine: Engine, seconds: float) -> Happened | None:
    """Until then: a second look is taken at once."""
    until = now() + seconds
    while True:
        happened = await one.event(cast(Exchange, engine), until)
        if happened is not None or now() >= until:
            return happened


def post(one: Watch, engine: Engine, happened: Happened) -> None:
    one.post((cast(Exchange, engine), happened))


async def test_silence_is_broken_by_beats() -> None:
    reader = Reader()
    one = watch(reader)
    began = now()
    assert await event(one, Engine(), 0.55) is None
    assert 3 <= len(reader.beats) <= 5
    gaps = [b - a for a, b in pairwise([began, *reader.beats])]
    assert min(gaps) >= 0.098


def speaks_for(engine: Engine, seconds: float) -> None:
    for tick in range(int(seconds * 10) + 1):
        asyncio.get_running_loop().call_later(tick / 10, engine.speaks)


async def test_no_beats_while_the_engine_speaks() -> None:
    reader, engine = Reader(), Engine()
    one = watch(reader, heartbeat_s=1.0)
    speaks_for(engine, 1.5)
    assert await event(one, engine, 1.5) is None
    assert reader.beats == []
    assert await event(one, engine, 1.5) is None
    assert len(reader.beats) == 1, "silent since its last word"


async def test_a_loop_that_was_held_up_is_no_silent_engine(virtual_time: Callable[[float], None]) -> None:
    """Timers come first; what was sent meanwhile is read a turn later."""
    reader, engine = Reader(), Engine()
    one = watch(reader, heartbeat_s=0.08)
    loop = asyncio.get_running_loop()

    def held_up() -> None:
        virtual_time(0.3)
        turns = 3

        def turn() -> None:
            nonlocal turns
            turns -= 1
            if turns:
                loop.call_soon(turn)
            else:
                engine.speaks()
                post(one, engine, Happened.EVENTS)

        loop.call_soon(turn)

    loop.call_later(0.05, held_up)
    assert await one.event(cast(Exchange, engine), now() + 0.1) is Happened.EVENTS
    assert reader.beats == []


async def test_nor_right_after_it_has_spoken() -> None:
    """A stream that breaks off has not been silent for long."""
    reader, engine = Reader(), Engine()
    one = watch(reader, heartbeat_s=1.0)
    speaks_for(engine, 1.3)
    asyncio.get_running_loop().call_later(1.35, post, one, engine, Happened.BROKE)
    assert await event(one, engine, 5) is Happened.BROKE
    await one.sleep(0.3)
    assert reader.beats == []
    await one.sleep(1.0)
    assert len(reader.beats) == 1


async def test_none_to_who_does_not_read() -> None:
    reader = Reader()
    one = watch(reader)
    reader.paused_at = now()
    assert await event(one, Engine(), 0.35) is None
    await one.sleep(0.25)
    assert reader.beats == []
    reader.paused_at = None
    await one.sleep(0.25)
    assert 1 <= len(reader.beats) <= 3


async def test_none_without_a_stream() -> None:
    one = watch(None)
    assert await event(one, Engine(), 0.25) is None
    await one.sleep(0.15)


async def test_what_another_exchange_says_is_passed_over() -> None:
    one, engine, given_up = watch(Reader()), Engine(), Engine()
    post(one, given_up, Happened.BROKE)
    post(one, engine, Happened.EVENTS)
    post(one, given_up, Happened.DONE)
    assert await event(one, engine, 5) is Happened.EVENTS
    assert await event(one, engine, 0.05) is None


async def test_a_second_look() -> None:
    one, engine = watch(Reader()), Engine()
    asyncio.get_running_loop().call_later(0.02, one.look_again)
    async with asyncio.timeout(5):
        assert await one.event(cast(Exchange, engine), now() + 1000) is None


@pytest.mark.parametrize("waits", ["event", "sleep", "found"])
async def test_the_end_of_all_patience(waits: str) -> None:
    one, engine = watch(Reader(), total_s=0.2), Engine()
    began = now()

    def never() -> None:
        return None

    async def wait() -> Any:
        if waits == "event":
            return await event(one, engine, 10)
        return await (one.sleep(10) if waits == "sleep" else one.found(never, now() + 10))

    with pytest.raises(UpstreamTimeout) as caught:
        await wait()
    assert caught.value.cause == "over 0.2 s in total"
    assert 0.198 <= now() - began < 5


async def test_a_condition_is_tried_when_something_may_have_changed() -> None:
    reader = Reader()
    one = watch(reader)
    open_doors: list[int] = []
    tried = []

    def an_open_door() -> int | None:
        tried.append(now())
        return open_doors[0] if open_doors else None

    assert await one.found(an_open_door, now() + 0.25) is None
    assert 1 <= len(reader.beats) <= 2, "who waits for it hears that it is not forgotten"
    loop = asyncio.get_running_loop()
    loop.call_later(0.02, one.look_again)
    loop.call_later(0.05, lambda: (open_doors.append(1), one.look_again()))
    tried.clear()
    async with asyncio.timeout(5):
        assert await one.found(an_open_door, now() + 1000) == 1
    assert 3 <= len(tried) <= 4
    assert await one.found(an_open_door, 0.0) == 1, "without waiting"
