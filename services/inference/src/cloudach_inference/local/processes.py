"""On Linux this module adopts orphaned processes, finds all descendants, and ends them by their ids."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
_MAPPED = re.compile(r"(\d+)\s+/dev/shm/", re.MULTILINE)


def adopt_orphans() -> None:
    """Makes descendants whose parent dies our children instead of init's, so that none gets out of sight."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants(root: int) -> list[int]:
    """Returns all processes below `root`, without zombies."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def shared_memory(pid: int) -> set[Path]:
    """Returns the named segments and semaphores of Python that a process has mapped. They outlive a killed process."""
    try:
        mapped = set(map(int, _MAPPED.findall(Path(f"/proc/{pid}/maps").read_text())))
    except OSError:
        return set()
    # By inode: a semaphore is mapped under the name that it had before it got its own.
    named = (*_SHARED_MEMORY.glob("psm_*"), *_SHARED_MEMORY.glob("sem.mp-*"))
    return {path for path in named if _inode(path) in mapped}


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def end_descendants(*, grace_s: float) -> list[int]:
    """Sends SIGTERM to all, and SIGKILL to those that are left after the grace. Returns those that did not die.

    What they leave in /dev/shm goes too: vLLM's segments are hundreds of megabytes of memory a run.
    """
    asked: set[int] = set()
    segments: set[Path] = set()
    deadline = time.monotonic() + grace_s
    given_up = deadline + 10
    while True:
        _reap()
        alive = descendants(os.getpid())
        now = time.monotonic()
        if not alive or now > given_up:
            for segment in segments:
                segment.unlink(missing_ok=True)
            return alive
        for pid in alive:
            segments |= shared_memory(pid) if pid not in asked else set()
            if now > deadline:
                _signal(pid, signal.SIGKILL)
            elif pid not in asked:
                _signal(pid, signal.SIGTERM)
            asked.add(pid)
        time.sleep(0.05)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
