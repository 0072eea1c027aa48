"""CPU of all parties over a window of time, per chunk or per request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.client import Tally
from tests.bench.contenders.base import PROXY
from tests.bench.cpu import CpuMeter, CpuTime
from tests.bench.results import Figures

from .load import Subject


@dataclass(frozen=True, slots=True)
class Window:
    """What one window held."""

    seconds: float
    events: int
    answers: int
    used: Mapping[str, CpuTime]
    foreign_s: float

    def per_chunk(self) -> Figures:
        """CPU of each part in µs per event."""
        return self._per(self.events, "us_per_chunk", 1e6) | {"chunks_per_s": self.events / self.seconds}

    def per_request(self, events_of_one: float | None = None) -> Figures:
        """CPU of each part in ms per request; parts of streams count by their events, where it is told how many."""
        count = self.events / events_of_one if events_of_one else self.answers
        return self._per(count, "ms_per_request", 1e3) | {"requests_per_s": count / self.seconds}

    def _per(self, count: float, name: str, unit: float) -> Figures:
        figures: Figures = {"foreign_cores": self.foreign_s / self.seconds}
        for part, cpu in self.used.items():
            figures[f"{part}_busy"] = cpu.total / self.seconds
            if count:
                figures[f"{part}_{name}"] = cpu.total / count * unit
        if PROXY in self.used and count:
            figures[f"{PROXY}_user_{name}"] = self.used[PROXY].user / count * unit
        return figures


async def measured(
    subject: Subject, tally: Tally, seconds: float, *, box_s: float = 0.0, chunks: int = 1, requests: int = 0
) -> Window:
    """`seconds` long, or until it holds so much, but no longer than `box_s`, also when nothing comes."""
    meter = CpuMeter(subject.groups)
    began, events, answers = time.perf_counter(), tally.events, tally.answers
    await asyncio.sleep(seconds)
    while tally.events - events < chunks or tally.answers - answers < requests:
        if time.perf_counter() > began + box_s:
            break
        await asyncio.sleep(seconds / 4)
    used = meter.used()
    passed = time.perf_counter() - began
    return Window(passed, tally.events - events, tally.answers - answers, used, meter.foreign_s(used))
