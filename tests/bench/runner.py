"""Starts simulator and contenders, each on its core, and takes them through the workloads in turns."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.support.stack import Simulator, start_sim

from .client import BadAnswer, Target
from .contenders import ALL, Contender, Engine
from .machine import Cores, on_core
from .results import Results, Run
from .workloads import Plan, Subject, groups, short_streams, whole_answers, workloads

_MODEL = "sim"
_WARM_UP = Plan(window_s=0.2, requests_at_once=4, least_requests=20)


class RunFailed(Exception):
    """A contender did not do what it was asked; there are no figures then."""


@dataclass(frozen=True, slots=True)
class _Started:
    contender: Contender
    target: Target


def run(
    names: Sequence[str], plan: Plan, cores: Cores, *, burst: int, say: Callable[[str], None]
) -> tuple[Results, dict[str, str]]:
    """The results, and the contenders' versions. Raises RunFailed, ServerFailed."""
    results = Results()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        with on_core(cores.simulator):
            simulator = stack.enter_context(start_sim(flat=True, burst=burst))
        engine = Engine(simulator.url, _MODEL, simulator.process.pid)
        started = [stack.enter_context(_running(name, engine, folder, cores)) for name in names]
        stack.enter_context(on_core(cores.client))
        gc.collect()
        gc.freeze()
        for each in started:
            _warm_up(each, engine, simulator)
        for number in range(plan.rounds):
            for workload in workloads(plan):
                simulator.configure(rate=workload.rate)
                # Each is the first one in turn: whatever drifts meets all alike.
                for each in started[number % len(started) :] + started[: number % len(started)]:
                    say(f"round {number + 1} of {plan.rounds}: {workload.name}: {each.contender.title}")
                    with _told_apart(each.contender, workload.name):
                        figures = uvloop.run(workload.run(_subject(each, engine), plan))
                    results.runs.append(Run(each.contender.name, workload.name, number, figures))
        versions = {each.contender.title: each.contender.version() for each in started}
    return results, versions


@contextlib.contextmanager
def _running(name: str, engine: Engine, folder: Path, cores: Cores) -> Iterator[_Started]:
    own = folder / name
    own.mkdir()
    contender = ALL[name](engine, own)
    try:
        with on_core(cores.contender):
            target = contender.start()
        yield _Started(contender, target)
    finally:
        contender.stop()


def _subject(started: _Started, engine: Engine) -> Subject:
    parts = groups(started.contender.parts(), engine.pid, os.getpid())
    return Subject(started.target, Target(engine.url, engine.model), parts)


def _warm_up(started: _Started, engine: Engine, simulator: Simulator) -> None:
    simulator.configure(rate=0.0)
    with _told_apart(started.contender, "warm-up"):
        uvloop.run(short_streams(_subject(started, engine), _WARM_UP))
        uvloop.run(whole_answers(_subject(started, engine), _WARM_UP))


@contextlib.contextmanager
def _told_apart(contender: Contender, workload: str) -> Iterator[None]:
    try:
        yield
    except* (BadAnswer, OSError) as problems:
        first: BaseException = problems
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        complaints = contender.complaints()
        said = f"\n{contender.title} said:\n{complaints}" if complaints else ""
        raise RunFailed(f"{contender.title}, {workload}: {first}{said}") from problems
