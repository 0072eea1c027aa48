"""Streams at the pace of an engine: CPU per chunk, how late chunks come, and the TTFT of further streams."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from tests.bench.client import Arrivals, Client, Tally
from tests.bench.contenders.base import PROXY
from tests.bench.memory import memory_of
from tests.bench.plan import Plan
from tests.bench.results import Figures, percentile

from .load import Streams, Subject, once, probes
from .window import measured

_MARGIN_S = 0.7


async def paced(subject: Subject, plan: Plan, streams: int, *, probe: bool = True) -> Figures:
    """`streams` of them at `plan.rate`. None begins or ends in the window; then all end at about the same time."""
    tally, outcome = Tally(subject.phases), Streams()
    probes_s = plan.probes_s if probe else 0.0
    ramp_s = plan.ramp_of(streams)
    window_s = plan.window_of(streams)
    whole_s = ramp_s + plan.settle_s + window_s + probes_s + _MARGIN_S
    async with _witnesses(subject, tally, min(streams, subject.phases), whole_s, plan):
        with Client(subject.target, tally) as client:
            async with asyncio.TaskGroup() as group:
                began = time.perf_counter()
                running = []
                for number in range(streams):
                    await asyncio.sleep(began + ramp_s * number / streams - time.perf_counter())
                    tokens = round((whole_s - ramp_s * number / streams) * plan.rate)
                    request = subject.target.request(max_tokens=tokens, stream=True)
                    running.append(group.create_task(once(client, request, outcome, number % subject.phases)))
                await asyncio.sleep(plan.settle_s)
                tally.arrivals = arrivals = Arrivals()
                window = await measured(subject, tally, window_s, box_s=plan.box_s)
                tally.arrivals = None
                ended_early = outcome.finished
                held = memory_of(subject.groups.get(PROXY, ()))
                first = await _probed(subject, plan, probes_s)
                await asyncio.wait(running, timeout=max(0.0, began + whole_s + plan.grace_s - time.perf_counter()))
                client.abort()
    figures = window.per_chunk() | {
        "streams": streams,
        "streams_finished": outcome.finished,
        "streams_finished_in_window": ended_early,
        "pss_mib": held.pss / 1024,
        "chunks_expected_per_s": streams * plan.rate,
    }
    if not window.events:
        return figures
    figures["reads_per_chunk"] = len(arrivals.lags) / window.events
    figures |= _percentiles("lag", sorted(arrivals.lags))
    figures |= _percentiles("gap", sorted(_by_step(gap, 1 / plan.rate) for gap in arrivals.gaps))
    if first:
        figures |= _percentiles("ttft", first) | {"ttft_samples": len(first)}
    return figures


async def _probed(subject: Subject, plan: Plan, seconds: float) -> list[float]:
    if not seconds:
        return []
    with Client(subject.target, Tally()) as client:
        return await probes(client, subject.target.request(max_tokens=1, stream=True), seconds, plan.grace_s)


@contextlib.asynccontextmanager
async def _witnesses(subject: Subject, tally: Tally, count: int, seconds: float, plan: Plan) -> AsyncIterator[None]:
    """Streams that come directly from the engine and tell when each of its clocks ticks.

    The engine gives its clocks to streams in turns, and a clock's ticks count from its first stream: the witnesses
    begin so that the clocks lie evenly apart. As they ask for token ids they get a chunk at every tick, also where a
    character is not complete yet.
    """
    apart_s = 1 / plan.rate
    tokens = round((seconds + 2 * apart_s * subject.phases + plan.grace_s) * plan.rate)
    long = subject.engine.request(max_tokens=tokens, stream=True, return_token_ids=True)
    short = subject.engine.request(max_tokens=1, stream=True, return_token_ids=True)
    own = Tally(subject.phases)
    own.ticks = tally.ticks
    with Client(subject.engine, own, witness=True) as witness:
        async with asyncio.TaskGroup() as group:
            began = time.perf_counter()
            for number in range(subject.phases):
                await asyncio.sleep(began + number * apart_s * (1 + 1 / subject.phases) - time.perf_counter())
                request = long if number < count else short  # a short one only takes its turn
                group.create_task(once(witness, request, Streams(), number))
            await asyncio.sleep(apart_s)
            yield
            witness.abort()


def _by_step(gap_s: float, step_s: float) -> float:
    """A gap less the steps at which the engine had nothing to say, for want of a whole character."""
    return gap_s - step_s * max(0, round(gap_s / step_s) - 1)


def _percentiles(name: str, ascending: list[float]) -> Figures:
    return {f"{name}_p{percent}_ms": 1000 * percentile(ascending, percent) for percent in (50, 99)}
