from __future__ import annotations

import asyncio

import pytest
from cloudach_gateway.proxy.alarm import Alarm


async def test_it_rings_when_due() -> None:
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop.time() + 0.05)
    with pytest.raises(TimeoutError):
        await alarm.wait(asyncio.sleep(5))
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_it_can_be_put_off_and_used_again() -> None:
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop.time() + 0.05)
    for _ in range(10):
        alarm.due = loop.time() + 0.05
        assert await alarm.wait(asyncio.sleep(0.02, "done")) == "done"
    began = loop.time()
    with pytest.raises(TimeoutError):
        await alarm.wait(asyncio.sleep(5))
    assert loop.time() - began < 1
    alarm.due = loop.time() + 5
    assert await alarm.wait(asyncio.sleep(0.01, "again")) == "again"
    alarm.off()


async def test_what_is_overdue_rings_at_the_next_wait() -> None:
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop.time() + 0.02)
    assert await alarm.wait(asyncio.sleep(0, "quick")) == "quick"
    await asyncio.sleep(0.05)
    with pytest.raises(TimeoutError):
        await alarm.wait(asyncio.sleep(5))


async def test_a_cancel_from_outside_stays_a_cancel() -> None:
    async def work() -> None:
        await Alarm(asyncio.get_running_loop().time() + 5).wait(asyncio.sleep(5))

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
