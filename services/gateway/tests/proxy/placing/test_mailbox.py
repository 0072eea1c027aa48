"""One reader waits for what callbacks post."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from cloudach_gateway.proxy.placing.mailbox import Mailbox


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_in_order_and_without_waiting() -> None:
    mail: Mailbox[int] = Mailbox()
    for number in range(3):
        mail.post(number)
    assert [await mail.get(0.0) for _ in range(3)] == [0, 1, 2]


async def test_none_at_the_time_and_not_before() -> None:
    mail: Mailbox[int] = Mailbox()
    began = now()
    assert await mail.get(began + 0.1) is None
    assert now() - began >= 0.098
    assert await mail.get(began) is None, "a time that has passed"


async def test_a_post_wakes_at_once() -> None:
    mail: Mailbox[str] = Mailbox()
    asyncio.get_running_loop().call_later(0.02, mail.post, "there")
    async with asyncio.timeout(20):
        assert await mail.get(now() + 1000) == "there"


async def test_two_posts_in_one_turn_are_two_events() -> None:
    mail: Mailbox[int] = Mailbox()
    waiting = asyncio.create_task(mail.get(now() + 5))
    await asyncio.sleep(0)
    mail.post(1)
    mail.post(2)
    assert await waiting == 1
    assert await mail.get(now() + 5) == 2


async def test_a_none_that_was_posted_ends_a_wait_too() -> None:
    mail: Mailbox[int | None] = Mailbox()
    asyncio.get_running_loop().call_soon(mail.post, None)
    async with asyncio.timeout(20):
        assert await mail.get(now() + 1000) is None


@pytest.mark.parametrize("posted", [False, True])
async def test_a_cancelled_reader_takes_nothing_with_it(posted: bool) -> None:
    mail: Mailbox[int] = Mailbox()
    waiting = asyncio.create_task(mail.get(now() + 5))
    await asyncio.sleep(0)
    if posted:
        mail.post(1)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    if not posted:
        mail.post(1)
    async with asyncio.timeout(20):
        assert await mail.get(now() + 5) == 1


async def test_the_time_and_a_post_together() -> None:
    for _ in range(50):
        mail: Mailbox[int] = Mailbox()
        asyncio.get_running_loop().call_later(0.005, mail.post, 1)
        got = await mail.get(now() + 0.005)
        if got is None:
            got = await mail.get(now() + 1)
        assert got == 1
