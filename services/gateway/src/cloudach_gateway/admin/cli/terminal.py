"""Keeps commands safe from their terminal: from Ctrl-C, and from a stdout that is closed or full."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def take_any_text() -> None:
    """Makes the streams show characters that the terminal's encoding does not have with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def nobody_reads() -> None:
    """Gives up stdout, as when `| head` has seen enough. Python would complain again at its own end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_at_once(text: str) -> None:
    """Prints to stdout at once. Raises OSError if that is not taken."""
    if sys.stdout is None:
        raise OSError("stdout is closed")
    print(text, flush=True)


@contextmanager
def interrupted_afterwards() -> Iterator[None]:
    """Makes a Ctrl-C wait for the block's end, so that what was written is acknowledged too. A second one does not."""
    waiting = False

    def interrupt(_: int, __: FrameType | None) -> None:
        nonlocal waiting
        if waiting:
            raise KeyboardInterrupt
        waiting = True

    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:  # a command in the background stays deaf to it
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        raise KeyboardInterrupt
