"""One contender that runs on its core before one engine, and is taken through workloads."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import uvloop

from tests.support.stack import Simulator

from .client import BadAnswer, Target
from .contenders import ALL, PROXY, Engine
from .cpu import CpuMeter
from .machine import Cores, on_core
from .plan import WARM_UP, Plan
from .results import Figures
from .workloads import Subject, Workload, long_streams, short_streams, whole_answers

CLIENT, SIMULATOR = "client", "simulator"
_MODEL = "sim"
_BUSY, _QUIET_WITHIN_S = 0.1, 15.0


class RunFailed(Exception):
    """A contender did not do what it was asked: there are no figures of this run."""


class Running:
    """Use it in `with`; what it started ends with it."""

    def __init__(self, name: str, simulator: Simulator, folder: Path, cores: Cores, *, phases: int) -> None:
        self.name = name
        self._simulator = simulator
        self._engine = Engine(simulator.url, _MODEL, simulator.process.pid)
        self._cores = cores
        self._phases = phases
        own = folder / f"{name}-{phases}"
        own.mkdir(exist_ok=True)
        self.contender = ALL[name](self._engine, own)

    def start(self) -> None:
        """Start it and send the first requests. Raises ServerFailed, RunFailed."""
        with on_core(self._cores.contender):
            self._target = self.contender.start()
        self._simulator.configure(rate=0.0)
        with on_core(self._cores.client), self._told_apart("warm-up"):
            for workload in (short_streams, long_streams, whole_answers):
                uvloop.run(workload(self._subject(), WARM_UP))

    def run(self, workload: Workload, plan: Plan) -> Figures:
        """Raises RunFailed."""
        self._simulator.configure(rate=workload.rate)
        gc.collect()
        with self._told_apart(workload.title):
            figures: Figures = uvloop.run(workload.run(self._subject(), plan))
            return figures

    def settle(self) -> None:
        """Wait until it rests; one that does not is started anew. Raises ServerFailed, RunFailed."""
        until = time.monotonic() + _QUIET_WITHIN_S
        try:
            while self._busy() > _BUSY:
                if time.monotonic() > until:
                    break
            else:
                return
        except ProcessLookupError:
            pass
        self.contender.stop()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.contender.stop()

    def _busy(self) -> float:
        """Part of a core, over a moment. Raises ProcessLookupError."""
        meter = CpuMeter(self.contender.parts())
        began = time.perf_counter()
        time.sleep(0.1)
        used = meter.used()
        return used[PROXY].total / (time.perf_counter() - began) if used else 0.0

    def _subject(self) -> Subject:
        groups = {**self.contender.parts(), SIMULATOR: [self._engine.pid], CLIENT: [os.getpid()]}
        return Subject(self._target, Target(self._engine.url, _MODEL), groups, self._phases)

    @contextlib.contextmanager
    def _told_apart(self, what: str) -> Iterator[None]:
        try:
            yield
        except* (BadAnswer, OSError) as problems:
            first: BaseException = problems
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            complaints = self.contender.complaints()
            said = f"\n{self.contender.title} said:\n{complaints}" if complaints else ""
            raise RunFailed(f"{self.contender.title}, {what}: {first}{said}") from problems
