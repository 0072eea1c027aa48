"""What a process holds, from /proc: memory, open files, connections."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_ESTABLISHED = "01"
_CLOSE_WAIT = "08"


@dataclass(frozen=True, slots=True)
class Holdings:
    """`pss` in MiB. Connections by the port at this process's end, or else at the other one; a port's own listening
    socket is none. `others`: open files of every other kind."""

    pss: float
    accepted: Counter[int]
    made: Counter[int]
    others: int


def holdings(pid: int, listening: set[int]) -> Holdings:
    """listening: the ports at which it accepts connections."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (pss,) = re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    sockets = _sockets(pid)
    accepted: Counter[int] = Counter()
    made: Counter[int] = Counter()
    others = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue  # closed meanwhile
        ends = sockets.get(target)
        if ends is None:
            others += 1
        elif ends[0] in listening:
            accepted[ends[0]] += 1
        else:
            made[ends[1]] += 1
    return Holdings(int(pss) / 1024, accepted, made, others)


def _sockets(pid: int) -> dict[str, tuple[int, int]]:
    """`socket:[inode]` -> local and remote port, of connections that this end has not closed."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] in (_ESTABLISHED, _CLOSE_WAIT):
                local, remote = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
                found[f"socket:[{fields[9]}]"] = local, remote
    return found
