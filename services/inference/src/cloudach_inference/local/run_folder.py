"""A run has a private folder with a path short enough for Unix sockets. It is deleted afterwards, at the latest by the
next run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "cld-"
# A socket's path has at most 107 bytes, and HAProxy's take 80 below this folder.
_LONGEST_BASE = 12


def base_folder() -> Path:
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) <= _LONGEST_BASE else "/tmp")  # noqa: S108 - mkdtemp makes a private one in it


@contextmanager
def run_folder() -> Iterator[Path]:
    base = base_folder()
    sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sweep(base: Path) -> None:
    """Removes what killed runs left: our folders whose lock nobody holds."""
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            if folder.stat().st_uid != os.getuid() or not (folder / "lock").exists():
                continue
        except OSError:
            continue
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Returns None if another process holds the lock. It is not inherited, so it ends with this process, however that
    ends.
    """
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
