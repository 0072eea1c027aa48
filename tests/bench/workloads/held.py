"""Memory of streams that are open."""

from __future__ import annotations

import asyncio
import time

from tests.bench.client import Client, Tally
from tests.bench.contenders.base import PROXY
from tests.bench.memory import memory_of
from tests.bench.plan import Plan
from tests.bench.results import Figures

from .load import Streams, Subject, once

RATE = 0.2
"""Tokens a second of each stream: little enough that no contender is busy with them."""
_TOKENS = 100


async def held_open(subject: Subject, plan: Plan) -> Figures:
    """How much the contender grows while `plan.open_streams` are open, over what it took before, per stream."""
    pids = subject.groups[PROXY]
    tally, outcome = Tally(), Streams()
    request = subject.target.request(max_tokens=_TOKENS, stream=True)
    idle = memory_of(pids)
    ramp_s = plan.ramp_of(plan.open_streams)
    with Client(subject.target, tally) as client:
        async with asyncio.TaskGroup() as group:
            began = time.perf_counter()
            for number in range(plan.open_streams):
                await asyncio.sleep(began + ramp_s * number / plan.open_streams - time.perf_counter())
                group.create_task(once(client, request, outcome, 0))
            while tally.opened < plan.open_streams and time.perf_counter() < began + plan.open_s:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            await asyncio.sleep(plan.settle_s)
            opened, held = tally.opened, memory_of(pids)
            client.abort()
    if not opened:
        return {"streams": plan.open_streams, "streams_open": 0}
    return {
        "streams": plan.open_streams,
        "streams_open": opened,
        "idle_pss_mib": idle.pss / 1024,
        "idle_rss_mib": idle.rss / 1024,
        "pss_kib_per_stream": (held.pss - idle.pss) / opened,
        "rss_kib_per_stream": (held.rss - idle.rss) / opened,
    }
