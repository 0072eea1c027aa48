"""The rounds: each contender in turn through each workload, and what follows when one cannot take a load."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cloudach_simulator import pacer

from tests.support.processes import ServerFailed
from tests.support.stack import Simulator, start_sim

from .contenders import ALL, PROXY
from .machine import Cores, on_core
from .plan import Plan
from .results import Figures, Results, Run, Saturation
from .running import CLIENT, SIMULATOR, RunFailed, Running
from .workloads import REDUCED, Workload, paced_name, reduced, workloads

_SPREAD_PHASES = pacer._PHASES
_FULL, _BEHIND = 0.7, 0.85
"""Of a core, of the chunks a second that the engine sends: fuller and farther behind is saturated."""
_REDUCED_TO = 0.5
"""Of what a saturated contender relayed."""


class Rounds:
    """One benchmark. `results` fills while it runs."""

    def __init__(self, names: Sequence[str], plan: Plan, cores: Cores, *, say: Callable[[str], None]) -> None:
        self.results = Results(absent={name: why for name in names if (why := ALL[name].missing())})
        self.versions: dict[str, str] = {}
        """By title."""
        self._names = [name for name in names if name not in self.results.absent]
        self._plan = plan
        self._cores = cores
        self._say = say
        self._began = time.monotonic()
        self._left = ""

    def run(self) -> None:
        """Raises ServerFailed when there is no simulator."""
        plan = self._plan
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            engines = []
            for at_once in (False, True):
                if workloads(plan, at_once=at_once):
                    with on_core(self._cores.simulator):
                        simulator = stack.enter_context(
                            start_sim(rate=plan.rate, burst=plan.block if at_once else 1, spread=not at_once)
                        )
                    engines.append((at_once, simulator))
            gc.collect()
            gc.freeze()
            gc.disable()  # a collection in mid-window would be the client's noise; between runs there are some
            for number in range(plan.repeats):
                for at_once, simulator in engines:
                    self._round(number, simulator, folder, at_once)
                per_round = (time.monotonic() - self._began) / (number + 1)
                self._left = f", about {per_round * (plan.repeats - number - 1) / 60:.0f} min left"

    def _round(self, number: int, simulator: Simulator, folder: Path, at_once: bool) -> None:
        planned = workloads(self._plan, at_once=at_once)
        phases = 1 if at_once else _SPREAD_PHASES
        # Each is the first one in turn: whatever drifts meets all alike.
        turn = number % max(1, len(self._names))
        names = [
            name
            for name in (*self._names[turn:], *self._names[:turn])
            if name not in self.results.absent and any(self._given(name, workload) for workload in planned)
        ]
        with contextlib.ExitStack() as stack:
            started = []
            for name in names:
                self._tell(number, f"starting {ALL[name].title}")
                running = stack.enter_context(Running(name, simulator, folder, self._cores, phases=phases))
                if self._start(running):
                    started.append(running)
            with on_core(self._cores.client):
                for workload in planned:
                    for running in started:
                        if running.contender.parts() or not workload.of_processes:
                            self._give(number, workload, running)

    def _start(self, running: Running) -> bool:
        """False when it does not start; then it is left out from there on, unless it once did."""
        title = running.contender.title
        try:
            running.start()
        except (RunFailed, ServerFailed) as error:
            self.results.troubles.append(f"{title} did not start: {error}")
            if title not in self.versions:
                self.results.absent[running.name] = f"it did not start: {str(error).splitlines()[0].rstrip(':')}"
            return False
        self.versions[title] = running.contender.version()
        return True

    def _given(self, name: str, workload: Workload) -> Workload | None:
        """The workload, or what a contender gets instead that no more streams saturated; None: nothing."""
        limit = self.results.saturation(name)
        if limit is None or workload.streams < limit.streams:
            return workload
        if workload.name != paced_name(self._plan.cost_streams):
            return None
        return reduced(self._plan, max(1, int(_REDUCED_TO * limit.chunks_per_s / self._plan.rate)))

    def _give(self, number: int, workload: Workload, running: Running) -> None:
        given = self._given(running.name, workload)
        if given is not None and not self._measured(number, given, running):
            instead = self._given(running.name, workload)
            if instead is not None and instead.name == REDUCED != given.name:
                self._measured(number, instead, running)

    def _measured(self, number: int, workload: Workload, running: Running) -> bool:
        """Whether there are figures. A load that was too much is tried once more: something else may have hindered."""
        title = f"{running.contender.title}, {workload.title}"
        for attempt in (1, 2):
            self._tell(number, title if attempt == 1 else f"{title}, again, for streams were late")
            try:
                try:
                    figures = running.run(workload, self._plan)
                finally:
                    running.settle()
            except (RunFailed, ServerFailed) as error:
                self.results.troubles.append(f"{error}".replace(":", f", round {number + 1}:", 1))
                return False
            if not _too_much(figures):
                figures["generator_busy"] = self._generator_busy(figures)
                self.results.runs.append(Run(running.name, workload.name, number, figures))
                return True
        found = Saturation(
            running.name,
            int(figures["streams"]),
            int(figures["streams_finished"]),
            figures["chunks_per_s"],
            figures.get(f"{PROXY}_busy", 0.0),
        )
        once = self.results.has(running.name, workload.name)
        if workload.name == paced_name(found.streams) and found.busy > _FULL and not once:
            self.results.saturations.append(found)
        else:
            self.results.troubles.append(
                f"{title}, round {number + 1}: {found.finished} of {found.streams} streams finished in time, its core "
                f"busy to {found.busy:.0%}."
            )
        return False

    def _generator_busy(self, figures: Figures) -> float:
        """The part of a core that the busier of simulator and client took, or both where they share one."""
        parts = [figures.get(f"{part}_busy", 0.0) for part in (SIMULATOR, CLIENT)]
        return sum(parts) if self._cores.simulator == self._cores.client else max(parts)

    def _tell(self, number: int, what: str) -> None:
        minutes = (time.monotonic() - self._began) / 60
        self._say(f"round {number + 1} of {self._plan.repeats} ({minutes:.0f} min{self._left}): {what}")


def _too_much(figures: Figures) -> bool:
    """Of a paced load: streams ended too late, or a full core fell behind so far that they soon would."""
    full = figures.get(f"{PROXY}_busy", 0.0) > _FULL
    behind = figures.get("chunks_per_s", 0.0) < _BEHIND * figures.get("chunks_expected_per_s", 0.0)
    unfinished = figures.get("streams_finished", 0.0) < figures.get("streams", 0.0)
    return "streams_finished" in figures and (unfinished or (full and behind))
