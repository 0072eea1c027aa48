"""Traces wait here for a thread, which sends them. A receiver that hangs costs no request anything.

They are written by who puts them in: a thread that writes beside the event loop takes turns with it at the interpreter,
which doubled the CPU time that a sampled request costs.

The SDK's BatchSpanProcessor logs a line for each span that it drops, and counts none of them where we could see it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from . import encoding
from .senders import Sender
from .spans import Attributes, Span

_log = logging.getLogger("cloudach.traces")

Trace = Callable[[], Sequence[Span]]
"""Makes the spans of one trace that has ended. It is called once, by `put`, unless the trace is dropped."""

_WAKE_AT = 512  # traces, or half of a shorter queue
_SPANS_AT_ONCE = 2048  # about half a megabyte: a message costs the thread as much as forty requests cost the loop
_DELAY_S = 1.0


class Observer(Protocol):
    """Counts traces. It is called in the thread and by `put`."""

    def exported(self, traces: int) -> None: ...

    def dropped(self, reason: str, traces: int) -> None:
        """The reason is `queue_full`, `export_failed`, `shutdown` or `broken`."""


class TraceQueue:
    """Make it in the process that uses it, after any fork. At most `most` traces wait."""

    def __init__(
        self,
        sender: Sender,
        resource: Attributes,
        scope: tuple[str, str],
        observer: Observer,
        *,
        most: int = 2048,
        delay_s: float = _DELAY_S,
        spans_at_once: int = _SPANS_AT_ONCE,
    ) -> None:
        """delay_s: how long a trace waits at most for others to be sent with.

        spans_at_once: a message that has so many gets no further trace.
        """
        self._sender = sender
        self._resource = resource
        self._scope = scope
        self._observer = observer
        self._most = most
        self._wake_at = min(_WAKE_AT, (most + 1) // 2)
        self._delay_s = delay_s
        self._spans_at_once = spans_at_once
        self._waiting: deque[list[bytes]] = deque()
        self._on_their_way = 0
        self._counting = threading.Lock()  # so that `close` and the thread do not both count what is on its way
        self._wake = threading.Event()
        self._closing = False
        self._given_up = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def put(self, trace: Trace) -> None:
        """Makes the trace's spans and keeps them for the thread. Never waits and never raises."""
        if self._closing:
            self._observer.dropped("shutdown", 1)
        elif len(self._waiting) >= self._most:
            self._observer.dropped("queue_full", 1)
        else:
            try:
                self._waiting.append([encoding.span(span) for span in trace()])
            except Exception as broken:  # its text might quote the trace
                _log.error("a trace could not be written: %s", type(broken).__name__)
                self._observer.dropped("broken", 1)
                return
            if len(self._waiting) >= self._wake_at and not self._wake.is_set():
                self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Sends what waits. Blocks for at most about `timeout_s`, after which the rest is dropped and counted."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        with self._counting:
            self._given_up = True
            lost = len(self._waiting) + self._on_their_way
            self._waiting.clear()
            self._on_their_way = 0
        self._sender.close()
        if lost:
            self._observer.dropped("shutdown", lost)
            _log.warning("%d traces could not be exported before the end", lost)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._delay_s)
            self._wake.clear()
            closing = self._closing
            while self._waiting and not self._given_up:
                self._send_some()
            if closing:
                return

    def _send_some(self) -> None:
        written: list[bytes] = []
        while self._waiting and len(written) < self._spans_at_once:
            with self._counting:
                if self._given_up:  # `close` has counted all
                    return
                written += self._waiting.popleft()
                self._on_their_way += 1
        problem = self._sent(encoding.request(self._resource, self._scope, written))
        self._count(None if problem is None else "export_failed", self._on_their_way)
        self._say(problem)

    def _sent(self, message: bytes) -> str | None:
        try:
            return self._sender.send(message)
        except Exception as bug:  # in an exporter: the thread goes on, because nothing else would tell of its end
            return type(bug).__name__

    def _count(self, dropped: str | None, traces: int) -> None:
        """Counts traces that were on their way as exported or dropped, unless `close` has counted them."""
        with self._counting:
            if self._given_up:
                return
            self._on_their_way -= traces
        if dropped is None:
            self._observer.exported(traces)
        else:
            self._observer.dropped(dropped, traces)

    def _say(self, problem: str | None) -> None:
        """Logs when exports begin to fail, and when they succeed again."""
        if problem is not None and not self._failing:
            _log.warning("the receiver of traces does not take them: %s", problem)
        elif problem is None and self._failing:
            _log.info("the receiver of traces takes them again")
        self._failing = problem is not None
