"""CPU time of processes, from /proc: in nanoseconds, over all their threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of CPU. `user` is sampled by the kernel's tick and less exact than `total`."""

    total: float
    user: float

    def __add__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.total + other.total, self.user + other.user)


@dataclass(frozen=True, slots=True)
class _Process:
    threads: frozenset[str]
    exact_s: float
    user_s: float
    system_s: float


class CpuMeter:
    """Reads the CPU time that groups of processes use from its creation on."""

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {name: tuple(pids) for name, pids in groups.items()}
        self._before = {pid: _read(pid) for pids in self._groups.values() for pid in pids}
        self._machine_before = _machine_busy_s()

    def used(self) -> dict[str, CpuTime]:
        """Per group, since the meter was made. Raises ProcessLookupError when a process has gone."""
        return {
            name: sum((_used(self._before[pid], _read(pid)) for pid in pids), CpuTime(0.0, 0.0))
            for name, pids in self._groups.items()
        }

    def foreign_s(self, used: Mapping[str, CpuTime]) -> float:
        """CPU seconds of everything else on the machine, and what the hypervisor took away."""
        return max(0.0, _machine_busy_s() - self._machine_before - sum(time.total for time in used.values()))


def children(pid: int) -> list[int]:
    """Direct and further children."""
    found: list[int] = []
    for task in _tasks(pid):
        try:
            direct = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *children(child)]
    return found


def command_name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _used(before: _Process, now: _Process) -> CpuTime:
    user = now.user_s - before.user_s
    if now.threads == before.threads:
        return CpuTime(now.exact_s - before.exact_s, user)
    # The exact figure of a thread goes with it; the process' own keeps it, in steps of a tick.
    return CpuTime(user + now.system_s - before.system_s, user)


def _read(pid: int) -> _Process:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        raise ProcessLookupError(f"process {pid} has gone") from error
    exact = 0
    threads = []
    for task in _tasks(pid):
        try:
            exact += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
        threads.append(task.name)
    return _Process(frozenset(threads), exact / 1e9, int(fields[11]) * _TICK_S, int(fields[12]) * _TICK_S)


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _machine_busy_s() -> float:
    """User, nice, system, interrupts and steal of all cores."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * _TICK_S
