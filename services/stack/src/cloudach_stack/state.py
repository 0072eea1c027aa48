"""A stack has a state folder. It holds the folder while it runs, and is found and ended by it."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudach_service import private_files


class AlreadyRunning(Exception):
    """Another stack runs in this folder."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the folder until the block ends, or until this process does. Raises AlreadyRunning."""
    private_files.make_folder(folder)  # because logs, data and keys lie there
    with _pid_file(folder).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunning(
                f"A stack already runs here (process {file.read().strip()}): `make stop` ends it."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def stop(folder: Path, *, patience_s: float = 120.0) -> bool:
    """Ends the stack of this folder and waits for it. Returns False when none runs. Raises TimeoutError."""
    try:
        file = _pid_file(folder).open("r+")
    except FileNotFoundError:
        return False
    with file:
        if _free(file.fileno()):
            return False
        deadline = time.monotonic() + patience_s
        pid = 0
        while not _free(file.fileno()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"The stack (process {pid or 'unknown'}) did not end within {patience_s:.0f} s.")
            file.seek(0)
            # While it is empty, its process holds the folder and is about to write its id.
            if not pid and (written := file.read()):
                pid = int(written)
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
    return True


def _pid_file(folder: Path) -> Path:
    return folder / "stack.pid"


def _free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
