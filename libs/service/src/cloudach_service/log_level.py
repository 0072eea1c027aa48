"""The log level can be changed while a service runs. SIGUSR1 has it log everything, SIGUSR2 what its settings say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)

_log = logging.getLogger("cloudach.log")


class LevelSignals:
    """Heeds the two signals in one process. Call `catch` first, because a process that knows no signal ends with it.

    Only the named loggers and those below them change. Libraries would log what they send, and with it secrets.
    """

    def __init__(self, *loggers: str) -> None:
        self._loggers = [logging.getLogger(name) for name in loggers]
        self.last: int | None = None
        self._followed: int | None = None

    def catch(self) -> None:
        """Notes the signals from now on, for `heed`. Call it from the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a parent may have held them back

    def heed(self, loop: asyncio.AbstractEventLoop) -> None:
        """Acts on each signal from now on, and on the last one that was noted."""
        for number in SIGNALS:
            loop.add_signal_handler(number, self.act, number)
        if self.last is not None:
            self.act(self.last)

    def act(self, number: int) -> None:
        """Follows a signal. One that asks for what is so already says nothing.

        uvloop repeats a signal that came while the loop ran but before `heed`, which has been noted by then.
        """
        self.last = number
        if number == self._followed:
            return
        self._followed = number
        if number == signal.SIGUSR1:
            self._set(logging.DEBUG)
            _log.info("the log level has changed", extra={"log_level": "debug"})
        else:
            _log.info("the log level is as the settings say", extra={"log_level": _configured()})
            self._set(logging.NOTSET)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.last = number

    def _set(self, level: int) -> None:
        for logger in self._loggers:
            logger.setLevel(level)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """A child that is started meanwhile gets the signals once it catches them. Until then they wait for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _configured() -> str:
    return logging.getLevelName(logging.getLogger().level).lower()
