"""Child processes end with the process that started them, and when they are told to. Linux's prctl does the first."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> Callable[[], None] | None:
    """Returns a `preexec_fn`: the child gets SIGTERM when the thread that started it ends, however that ends.

    Start the child from the main thread. On other systems than Linux nothing is arranged.
    """
    parent = os.getpid()

    def arrange() -> None:
        if not bind_to(parent):
            os._exit(1)

    return arrange if _libc is not None else None


def bind_to(parent: int) -> bool:
    """Binds this process to its parent: it gets SIGTERM when that one ends. False when the parent has ended already."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return os.getppid() == parent


def end(process: subprocess.Popen[bytes], *, patience_s: float) -> None:
    """Ends the process by SIGTERM, and by SIGKILL when its patience is over. Returns when it has ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
