"""Waiting for what happens elsewhere and tells nobody. The bounds are for what never happens: a machine may be slow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 120.0


def until(condition: Callable[[], T], what: str = "it", *, within_s: float = PATIENCE_S, every_s: float = 0.02) -> T:
    """Asks the condition again and again, and returns its answer when that is true at last.

    what: what is waited for, for the failure's message. Raises AssertionError after `within_s`.
    """
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(every_s)


async def until_async(reached: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Lets the loop run until `reached` says so. Raises TimeoutError after `within_s`."""
    async with asyncio.timeout(within_s):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
