"""The machine that the bench runs on: which core is for whom, and what the header says about it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ALL = os.sched_getaffinity(0)
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@dataclass(frozen=True, slots=True)
class Cores:
    """The core numbers that each party is confined to; they coincide where the machine has too few."""

    contender: int
    simulator: int
    client: int

    @classmethod
    def choose(cls) -> Cores:
        """The contender has a core to itself if there are two, simulator and client as well if there are three."""
        own = _physical(sorted(os.sched_getaffinity(0)))
        return cls(own[0], own[min(1, len(own) - 1)], own[min(2, len(own) - 1)])

    def sentence(self) -> str:
        if self.contender == self.client:
            return f"everything on core {self.contender}, the only one: latencies say little"
        if self.simulator == self.client:
            return f"contender on core {self.contender}, simulator and client together on core {self.client}"
        return f"contender on core {self.contender}, simulator on {self.simulator}, client on {self.client}"


def _physical(cores: list[int]) -> list[int]:
    """One of each pair of hyper-threads."""
    seen: dict[str, int] = {}
    for core in cores:
        try:
            siblings = Path(_SIBLINGS.format(core)).read_text().strip()
        except OSError:
            siblings = str(core)
        seen.setdefault(siblings, core)
    return list(seen.values())


def on_core(core: int) -> contextlib.AbstractContextManager[None]:
    """What is started inside inherits the core."""
    return _on({core})


def on_all_cores() -> contextlib.AbstractContextManager[None]:
    """Inside `on_core`: for what is no part of the measurement."""
    return _on(_ALL)


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_many_connections() -> None:
    """Raise the limit of open files as far as it goes; what is started later inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def description() -> dict[str, str]:
    """CPU, cores, load before the start, software: what a reader needs to judge the figures."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores{' (virtual machine)' if _virtual() else ''}",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()) + " (1, 5, 15 minutes)",
        "software": f"Python {platform.python_version()}, uvloop {importlib.metadata.version('uvloop')}, "
        f"Linux {'.'.join(platform.release().split('.')[:2])}",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _virtual() -> bool:
    return " hypervisor " in Path("/proc/cpuinfo").read_text().replace("\n", " ")
