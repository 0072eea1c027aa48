"""Traces wait here for the thread that sends them: `otlp.queue`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..otlp.queue import ExportQueue, Observer
from ..otlp.senders import Sender
from . import encoding
from .spans import Attributes, Span

Trace = Callable[[], Sequence[Span]]
"""Makes the spans of one trace that has ended. It is called once, by `put`, unless the trace is dropped."""


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
        delay_s: float = 1.0,
        spans_at_once: int = 2048,
    ) -> None:
        """delay_s: how long a trace waits at most for others to be sent with.

        spans_at_once: a message that has so many gets no further trace.
        """
        self._queue = ExportQueue(
            "traces", sender, resource, scope, observer, most=most, delay_s=delay_s, parts_at_once=spans_at_once
        )
        self.close = self._queue.close

    def put(self, trace: Trace) -> None:
        """Makes the trace's spans and keeps them for the thread. Never waits and never raises."""
        self._queue.put(lambda: [encoding.span(span) for span in trace()])
