"""Hands each line of the log over for export."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..logs import Listener, fields_of
from . import encoding

_OF_THE_QUEUE = "cloudach.logs"


class Queue(Protocol):
    @property
    def thread(self) -> int | None:
        """The identifier of the thread that sends."""

    def put(self, write: Callable[[], Sequence[bytes]], /) -> None:
        """Takes what writes one record. Never waits and never raises."""


class LogExport(Listener):
    """Leaves out what exporting itself logs, because each export would make another one."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != _OF_THE_QUEUE and record.thread != self._queue.thread:
            self._put(round(record.created * 1e9), record.levelno, record.getMessage(), fields_of(record))

    def say(self, level: int, event: str, fields: Mapping[str, Any]) -> None:
        """The short way for one event: `logs.event`."""
        self._put(time.time_ns(), level, event, fields)

    def _put(self, created_ns: int, level: int, event: str, fields: Mapping[str, Any]) -> None:
        self._queue.put(lambda: (encoding.record(created_ns, level, event, fields),))
