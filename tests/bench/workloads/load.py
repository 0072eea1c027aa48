"""Requests that run while something is measured, and that never run on for long after it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.client import Client, Cut, Target

_PROBES_AT_ONCE = 2
_BETWEEN_PROBES_S = 0.02


@dataclass(frozen=True, slots=True)
class Subject:
    """One contender, running, and what it runs between."""

    target: Target
    engine: Target
    groups: Mapping[str, Sequence[int]]
    """Process ids of the contender's parts, of the simulator and of this process."""
    phases: int = 1
    """How many clocks the engine's streams take turns among."""


@dataclass(slots=True)
class Streams:
    """What became of requests."""

    begun: int = 0
    finished: int = 0


@contextlib.asynccontextmanager
async def endless(
    client: Client, request: bytes, at_once: int, *, stream: bool, linger_s: float
) -> AsyncIterator[None]:
    """Inside, `at_once` requests run at any time. At the end they are awaited for `linger_s`, then cut."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(_again(client, request, stop, stream)) for _ in range(at_once)]
        try:
            yield
        finally:
            stop.set()
        await asyncio.wait(running, timeout=linger_s)
        client.abort()


async def once(client: Client, request: bytes, streams: Streams, phase: int) -> None:
    """One stream; a cut one is counted as begun only. Raises BadAnswer."""
    streams.begun += 1
    try:
        await client.ask(request, stream=True, phase=phase)
    except Cut:
        return
    streams.finished += 1


async def probes(client: Client, request: bytes, seconds: float, grace_s: float) -> list[float]:
    """Times to first token, in seconds, ascending: a few streams at a time, at moments unlike the engine's ticks.

    One that has no answer `grace_s` after the last began counts with the time that it had.
    """
    found: list[float] = []
    until = time.perf_counter() + seconds

    async def probe() -> None:
        while time.perf_counter() < until:
            await asyncio.sleep(random.uniform(0.0, _BETWEEN_PROBES_S))
            began = time.perf_counter()
            try:
                found.append((await client.ask(request, stream=True)).ttft_s)
            except Cut:
                found.append(time.perf_counter() - began)
                return

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(probe()) for _ in range(_PROBES_AT_ONCE)]
        await asyncio.wait(running, timeout=seconds + grace_s)
        client.abort()
    return sorted(found)


async def _again(client: Client, request: bytes, stop: asyncio.Event, stream: bool) -> None:
    with contextlib.suppress(Cut):
        while not stop.is_set():
            await client.ask(request, stream=stream)
