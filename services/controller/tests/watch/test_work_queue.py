"""The work queue: a key is worked on once at a time, and comes back later and later when it fails."""

from __future__ import annotations

import asyncio

import pytest
from cloudach_controller.watch.work_queue import WorkQueue

pytestmark = pytest.mark.usefixtures("virtual_time")


async def test_a_key_waits_only_once() -> None:
    queue: WorkQueue[str] = WorkQueue(retry_max_s=1)
    for _ in range(3):
        queue.add("a")
    assert await queue.take() == "a"
    assert len(queue) == 0


async def test_a_key_that_changes_while_it_is_worked_on_comes_again() -> None:
    queue: WorkQueue[str] = WorkQueue(retry_max_s=1)
    queue.add("a")
    await queue.take()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "nobody else may take it meanwhile"
    queue.done("a")
    assert await asyncio.wait_for(queue.take(), 1) == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_failures_come_back_later_and_later_and_success_forgets_them() -> None:
    queue: WorkQueue[str] = WorkQueue(retry_max_s=0.5)
    delays = []
    for _ in range(4):
        queue.add("a")
        await queue.take()
        delays.append(queue.failed("a"))
    assert delays == [0.2, 0.4, 0.5, 0.5]
    await asyncio.wait_for(queue.take(), 5)
    queue.done("a")
    queue.add("a")
    await queue.take()
    assert queue.failed("a") == 0.2
    queue.close()


async def test_of_two_times_the_earlier_holds() -> None:
    queue: WorkQueue[str] = WorkQueue(retry_max_s=1)
    queue.add_after("a", 0.01)
    queue.add_after("a", 3600)
    assert await asyncio.wait_for(queue.take(), 5) == "a"


async def test_only_what_is_not_to_be_worked_on_anyhow_is_added_when_idle() -> None:
    queue: WorkQueue[str] = WorkQueue(retry_max_s=1)
    queue.add_after("later", 3600)
    queue.add("working")
    await queue.take()
    for key in ("later", "working", "idle"):
        queue.add_idle(key)
    assert await queue.take() == "idle"
    assert len(queue) == 0
    queue.done("working")
    assert len(queue) == 0
    queue.close()
