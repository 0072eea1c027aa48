"""A thread sends the metrics at an interval, and once more at the end. No request and no event loop waits for it.

Nothing waits for a receiver that is away: values are cumulative, so the next message says all that a lost one said.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..otlp.senders import Sender

_log = logging.getLogger("cloudach.metrics")


class Observer(Protocol):
    """Counts exports. It is called in the thread."""

    def exported(self, result: str, /) -> None:
        """The result is `taken` or `failed`."""


class MetricExport:
    """Make it in the process whose metrics are those of the whole service, after any fork."""

    def __init__(self, message: Callable[[], bytes], sender: Sender, observer: Observer, *, interval_s: float) -> None:
        """message: collects the metrics and writes their export request. It is called in the thread."""
        self._message = message
        self._sender = sender
        self._observer = observer
        self._interval_s = interval_s
        self._ending = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Sends the last values. Blocks for at most about `timeout_s`, after which they are given up."""
        self._ending.set()
        self._thread.join(timeout_s)
        self._sender.close()
        if self._thread.is_alive():
            _log.warning("the last metrics could not be exported before the end")

    def _run(self) -> None:
        due = time.monotonic() + self._interval_s
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic()) + self._interval_s
            self._export()
        self._export()

    def _export(self) -> None:
        try:
            problem = self._sender.send(self._message())
        except Exception as bug:  # the thread goes on, because nothing else would tell of its end
            problem = type(bug).__name__
        self._observer.exported("taken" if problem is None else "failed")
        if problem is not None and not self._failing:
            _log.warning("the receiver of metrics does not take them: %s", problem)
        elif problem is None and self._failing:
            _log.info("the receiver of metrics takes them again")
        self._failing = problem is not None
