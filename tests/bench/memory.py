"""Memory of processes, from /proc."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"^(Rss|Pss):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """In KiB. `pss` divides pages that processes share among them."""

    rss: int
    pss: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss)


def memory_of(pids: Iterable[int]) -> Memory:
    """Of all of them together. Raises ProcessLookupError when one has gone."""
    return sum((_of(pid) for pid in pids), Memory(0, 0))


def _of(pid: int) -> Memory:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError as error:
        raise ProcessLookupError(f"process {pid} has gone") from error
    found = {name: int(size) for name, size in _LINE.findall(text)}
    return Memory(found["Rss"], found["Pss"])
