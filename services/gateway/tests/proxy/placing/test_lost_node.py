"""A pod whose node has gone: it stays in its slice for half a minute or more, and no packet is answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cloudach_gateway.proxy.engine.pool import Origin
from cloudach_gateway.proxy.placing.balance import Balancer
from cloudach_gateway.proxy.placing.fleet import Engines, Unreachable

from tests.support.wire import response

from .scene import Scene

DEAD = "http://127.0.0.1:1"
CONNECT_S = 0.3
ANSWER = response("hi", kind=None)
REQUESTS = 150


async def test_few_requests_wait_for_a_pod_that_does_not_answer(
    start_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one at a time tries whether it is back: it has nothing to do, so all would go there first."""

    async def play(peer: Any) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.05)
            await peer.say(ANSWER)

    live = await start_engine(play)
    scene = Scene(DEAD, live.url)
    engines = Engines(connect_s=20, directory=scene.catalog, balancer=Balancer(cooldown_s=0.1))
    engines.start()
    assert engines._pool is not None
    connect, tries = engines._pool.connect, []

    async def connect_or_wait(origin: Origin) -> Any:
        if origin.port != 1:
            return await connect(origin)
        tries.append(origin)
        await asyncio.sleep(CONNECT_S)
        raise TimeoutError

    monkeypatch.setattr(engines._pool, "connect", connect_or_wait)

    async def ask() -> None:
        tried: list[str] = []
        while True:
            upstream = engines.pick(scene.model, tried)
            assert upstream is not None
            tried.append(upstream)
            over: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            try:
                exchange = await engines.open(
                    scene.model, upstream, "/", b"", headers=(), post=over.set_result, events=False
                )
            except Unreachable:
                continue
            await over
            engines.close(exchange, failed=False)
            return

    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        for _ in range(REQUESTS):
            group.create_task(ask())
            await asyncio.sleep(0.01)
    first_burst = CONNECT_S / 0.01  # until it is known that it does not answer
    assert 2 <= len(tries) <= first_burst
    engines.stop()


async def test_a_request_that_is_given_up_while_it_connects_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(DEAD)
    engines = scene.engines
    assert engines._pool is not None

    async def connect(origin: Origin) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(engines._pool, "connect", connect)
    asking = asyncio.create_task(
        engines.open(scene.model, DEAD, "/", b"", headers=(), post=lambda _: None, events=False)
    )
    await asyncio.sleep(0.01)
    balancer = engines._balancer
    assert balancer._connecting == {DEAD: 1}
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (balancer._connecting, balancer._running) == ({}, {})
    engines.stop()
