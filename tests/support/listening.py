"""Which ports a program and all that it started listen on, for everyone."""

from __future__ import annotations

from pathlib import Path

from cloudach_inference.local.processes import descendants


def open_to_all(pid: int) -> list[str]:
    """One line for each TCP port that listens on all interfaces, with the process that does."""
    owners = {inode: process for process in (pid, *descendants(pid)) for inode in _sockets(process)}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == "0A" and set(address) == {"0"} and fields[9] in owners:
                found.append(f"{table} {int(port, 16)} {_command(owners[fields[9]])}")
    return found


def _sockets(pid: int) -> set[str]:
    inodes = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    except OSError:  # it has ended, or a descriptor is closed
        pass
    return inodes


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return str(pid)
