"""Entries wait here for a thread, which exports them. A receiver that hangs costs no request anything.

They are written by who puts them in: a thread that writes beside the event loop takes turns with it at the interpreter,
which doubled the CPU time that a sampled request costs.

The SDK's batch processors log a line for each entry that they drop, and count none of them where we could see it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from . import protobuf
from .senders import Sender

_WAKE_AT = 512  # entries, or half of a shorter queue
_PARTS_AT_ONCE = 2048  # about half a megabyte: a message costs the thread as much as forty requests cost the loop
_DELAY_S = 1.0


class Observer(Protocol):
    """Counts entries. It is called in the thread and by `put`."""

    def exported(self, entries: int, /) -> None: ...

    def dropped(self, reason: str, entries: int, /) -> None:
        """The reason is `queue_full`, `export_failed`, `shutdown` or `broken`."""


class ExportQueue:
    """Make it in the process that uses it, after any fork. At most `most` entries wait.

    An entry is what is kept or dropped as a whole: all spans of a trace, or one log record.
    """

    def __init__(
        self,
        signal: str,
        sender: Sender,
        resource: protobuf.Attributes,
        scope: tuple[str, str],
        observer: Observer,
        *,
        most: int = 2048,
        delay_s: float = _DELAY_S,
        parts_at_once: int = _PARTS_AT_ONCE,
    ) -> None:
        """signal: what the entries are, such as `traces`; what the queue says of itself stands under that name.

        delay_s: how long an entry waits at most for others to be sent with.
        parts_at_once: a message that has so many spans or records gets no further entry.
        """
        self._signal = signal
        self._sender = sender
        self._resource = resource
        self._scope = scope
        self._observer = observer
        self._most = most
        self._wake_at = min(_WAKE_AT, (most + 1) // 2)
        self._delay_s = delay_s
        self._parts_at_once = parts_at_once
        self._log = logging.getLogger(f"cloudach.{signal}")
        self._waiting: deque[Sequence[bytes]] = deque()
        self._on_their_way = 0
        self._counting = threading.Lock()  # so that `close` and the thread do not both count what is on its way
        self._wake = threading.Event()
        self._closing = False
        self._given_up = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name=signal, daemon=True)
        self._thread.start()

    @property
    def thread(self) -> int | None:
        """The sending thread's identifier, as `threading.get_ident` returns it."""
        return self._thread.ident

    def put(self, write: Callable[[], Sequence[bytes]]) -> None:
        """Writes an entry's parts and keeps them for the thread, unless it is dropped. Never waits and never raises."""
        if self._closing:
            self._observer.dropped("shutdown", 1)
        elif len(self._waiting) >= self._most:
            self._observer.dropped("queue_full", 1)
        else:
            try:
                self._waiting.append(write())
            except Exception as broken:  # its text might quote the entry
                self._log.error("one of the %s could not be written: %s", self._signal, type(broken).__name__)
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
            self._log.warning("%d %s could not be exported before the end", lost, self._signal)

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
        while self._waiting and len(written) < self._parts_at_once:
            with self._counting:
                if self._given_up:  # `close` has counted all
                    return
                written += self._waiting.popleft()
                self._on_their_way += 1
        problem = self._sent(protobuf.request(self._resource, self._scope, written))
        self._count(None if problem is None else "export_failed", self._on_their_way)
        self._say(problem)

    def _sent(self, message: bytes) -> str | None:
        try:
            return self._sender.send(message)
        except Exception as bug:  # in an exporter: the thread goes on, because nothing else would tell of its end
            return type(bug).__name__

    def _count(self, dropped: str | None, entries: int) -> None:
        """Counts entries that were on their way as exported or dropped, unless `close` has counted them."""
        with self._counting:
            if self._given_up:
                return
            self._on_their_way -= entries
        if dropped is None:
            self._observer.exported(entries)
        else:
            self._observer.dropped(dropped, entries)

    def _say(self, problem: str | None) -> None:
        """Logs when exports begin to fail, and when they succeed again."""
        if problem is not None and not self._failing:
            self._log.warning("the receiver of %s does not take them: %s", self._signal, problem)
        elif problem is None and self._failing:
            self._log.info("the receiver of %s takes them again", self._signal)
        self._failing = problem is not None
