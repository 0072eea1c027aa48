"""What is done to one contender in one round. A workload returns its figures; a failed request raises BadAnswer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from .client import BadAnswer, Client, Tally, Target
from .contenders.base import PROXY
from .cpu import CpuMeter, CpuTime
from .results import Figures, percentile

_CLIENT, _SIMULATOR = "client", "simulator"


KINDS = ("paced", "flat", "short", "whole")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    kinds: tuple[str, ...] = KINDS
    rounds: int = 3
    streams: tuple[int, ...] = (1, 64, 256)
    """Streams that run at once; a table's CPU per chunk is that of the most."""
    rate: float = 50.0
    """Tokens a second of each paced stream."""
    window_s: float = 1.5
    """One measurement of CPU."""
    probes_s: float = 2.0
    """How long further streams are begun, for their time to first token."""
    flat_streams: int = 32
    flat_tokens: int = 1000
    """Tokens of a stream that runs flat out."""
    requests_at_once: int = 8
    answer_tokens: int = 16
    """Tokens of an answer that is not streamed."""
    least_chunks: int = 20_000
    least_requests: int = 200
    """A loaded window goes on until it holds as many."""
    ramp_s: float = 1.0
    """Over which paced streams begin, for 256 of them; fewer begin in less."""


QUICK = Plan(
    rounds=1,
    streams=(16,),
    window_s=0.4,
    probes_s=0.4,
    flat_streams=8,
    flat_tokens=200,
    least_chunks=500,
    least_requests=30,
)

_SETTLE_S = 0.3
_PROBES_AT_ONCE = 2
_MARGIN_S = 0.7


@dataclass(frozen=True, slots=True)
class Subject:
    """One contender, running, and what it runs between."""

    target: Target
    engine: Target
    groups: Mapping[str, Sequence[int]]
    """Process ids of the contender's parts, of the simulator and of this process."""


def groups(parts: Mapping[str, Sequence[int]], simulator: int, client: int) -> dict[str, Sequence[int]]:
    return {**parts, _SIMULATOR: [simulator], _CLIENT: [client]}


async def paced(subject: Subject, plan: Plan, streams: int) -> Figures:
    """That many streams at `plan.rate`: CPU per chunk, how late chunks come, then the TTFT of further streams."""
    tally, witness_tally, probe_tally = Tally(), Tally(), Tally()

    def tick(now: float) -> None:
        tally.tick_at = now

    # The engine's streams tick together: one that comes directly tells when, for chunks that took another way. As it
    # asks for token ids it gets a chunk at every tick, also where a character is not complete yet.
    witness = Client(subject.engine, witness_tally, on_arrival=tick)
    client, prober = Client(subject.target, tally), Client(subject.target, probe_tally)
    ramp_s = plan.ramp_s * streams / 256
    busy_s = _SETTLE_S + plan.window_s + plan.probes_s + _MARGIN_S
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tokens = round((ramp_s + busy_s) * plan.rate)
        long = subject.engine.request(max_tokens=tokens, stream=True, return_token_ids=True)
        group.create_task(_again(witness, long, stop))
        await asyncio.sleep(0.05)
        request = subject.target.request(max_tokens=round(busy_s * plan.rate), stream=True)
        began = time.perf_counter()
        for number in range(streams):
            await asyncio.sleep(began + ramp_s * number / streams - time.perf_counter())
            group.create_task(_again(client, request, stop))
        await asyncio.sleep(_SETTLE_S)
        tally.lags = array("d")
        before = tally.answers
        window = await _measured(subject, tally, plan.window_s, chunks=1)
        lags = sorted(tally.lags)
        tally.lags = None
        restarts = tally.answers - before
        first = await _probes(prober, subject.target.request(max_tokens=1, stream=True), plan.probes_s)
        stop.set()
    for each in (client, witness, prober):
        each.close()
    return {
        **window.per_chunk(),
        "chunks_per_s": window.events / window.seconds,
        "chunks_expected_per_s": streams * plan.rate,
        "arrivals_per_chunk": len(lags) / window.events,
        "requests_begun_in_window": restarts,
        "lag_p50_ms": 1000 * percentile(lags, 50),
        "lag_p99_ms": 1000 * percentile(lags, 99),
        "ttft_p50_ms": 1000 * percentile(first, 50),
        "ttft_p99_ms": 1000 * percentile(first, 99),
        "ttft_samples": len(first),
    }


async def flat_out(subject: Subject, plan: Plan) -> Figures:
    """Streams as fast as they go: CPU per chunk and chunks/s."""
    client = Client(subject.target, Tally())
    request = subject.target.request(max_tokens=plan.flat_tokens, stream=True)
    async with _load(client, request, plan.flat_streams, stream=True):
        window = await _measured(subject, client.tally, plan.window_s, chunks=plan.least_chunks)
    return {**window.per_chunk(), "chunks_per_s": window.events / window.seconds}


async def short_streams(subject: Subject, plan: Plan) -> Figures:
    """Streams of one token: CPU per request."""
    client = Client(subject.target, Tally())
    request = subject.target.request(max_tokens=1, stream=True)
    async with _load(client, request, plan.requests_at_once, stream=True):
        window = await _measured(subject, client.tally, plan.window_s, requests=plan.least_requests)
    return window.per_request()


async def whole_answers(subject: Subject, plan: Plan) -> Figures:
    """Short requests that are not streamed: CPU per request."""
    client = Client(subject.target, Tally())
    request = subject.target.request(max_tokens=plan.answer_tokens, stream=False)
    async with _load(client, request, plan.requests_at_once, stream=False):
        window = await _measured(subject, client.tally, plan.window_s, requests=plan.least_requests)
    return window.per_request()


@dataclass(frozen=True, slots=True)
class Workload:
    """One of the above, under the name that results carry."""

    name: str
    rate: float
    """Tokens a second that the simulator is set to; 0: flat out."""
    run: Callable[[Subject, Plan], Awaitable[Figures]]


FLAT_OUT, SHORT_STREAMS, WHOLE_ANSWERS = "flat out", "streams of 1 token", "whole answers"


def paced_name(streams: int) -> str:
    return f"{streams} paced"


def workloads(plan: Plan) -> list[Workload]:
    """In the order in which each round goes through them."""
    kinds = {
        "paced": [Workload(paced_name(count), plan.rate, partial(paced, streams=count)) for count in plan.streams],
        "flat": [Workload(FLAT_OUT, 0.0, flat_out)],
        "short": [Workload(SHORT_STREAMS, 0.0, short_streams)],
        "whole": [Workload(WHOLE_ANSWERS, 0.0, whole_answers)],
    }
    return [workload for kind in plan.kinds for workload in kinds[kind]]


@dataclass(frozen=True, slots=True)
class _Window:
    seconds: float
    events: int
    answers: int
    used: Mapping[str, CpuTime]
    foreign_s: float

    def per_chunk(self) -> Figures:
        return self._per(self.events, "us_per_chunk", 1e6)

    def per_request(self) -> Figures:
        figures = self._per(self.answers, "ms_per_request", 1e3)
        return figures | {"requests_per_s": self.answers / self.seconds}

    def _per(self, count: int, name: str, unit: float) -> Figures:
        figures: Figures = {"foreign_cores": self.foreign_s / self.seconds}
        for part, cpu in self.used.items():
            figures[f"{part}_busy"] = cpu.total / self.seconds
            figures[f"{part}_{name}"] = cpu.total / count * unit
        if PROXY in self.used:
            figures[f"{PROXY}_user_{name}"] = self.used[PROXY].user / count * unit
        return figures


async def _measured(subject: Subject, tally: Tally, seconds: float, *, chunks: int = 0, requests: int = 0) -> _Window:
    """At least that long and at least so much of it. Raises BadAnswer when it takes ten times as long or more."""
    meter = CpuMeter(subject.groups)
    began, events, answers = time.perf_counter(), tally.events, tally.answers
    await asyncio.sleep(seconds)
    patience = time.perf_counter() + max(10.0, 9 * seconds)
    while tally.events - events < chunks or tally.answers - answers < requests:
        if time.perf_counter() > patience:
            raise BadAnswer(f"only {tally.events - events} events and {tally.answers - answers} answers in time")
        await asyncio.sleep(seconds / 4)
    used = meter.used()
    passed = time.perf_counter() - began
    return _Window(passed, tally.events - events, tally.answers - answers, used, meter.foreign_s(used))


@contextlib.asynccontextmanager
async def _load(client: Client, request: bytes, at_once: int, *, stream: bool) -> AsyncIterator[None]:
    """Inside, `at_once` requests run at any time, after a moment to settle; at the end they are awaited."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(_again(client, request, stop, stream=stream))
        await asyncio.sleep(_SETTLE_S)
        yield
        stop.set()
    client.close()


async def _again(client: Client, request: bytes, stop: asyncio.Event, *, stream: bool = True) -> None:
    while not stop.is_set():
        await client.ask(request, stream=stream)


async def _probes(client: Client, request: bytes, seconds: float) -> list[float]:
    """Times to first token, in seconds, ascending: a few streams at a time, at moments unlike the engine's ticks."""
    found: list[float] = []
    until = time.perf_counter() + seconds

    async def probe() -> None:
        while time.perf_counter() < until:
            await asyncio.sleep(random.uniform(0.0, 0.02))
            found.append((await client.ask(request, stream=True)).ttft_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(_PROBES_AT_ONCE):
            group.create_task(probe())
    return sorted(found)
