"""Begins a request's trace, and hands it over for export when the request has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from cloudach_service.traces import w3c
from cloudach_service.traces.sampling import Sampling
from cloudach_service.traces.spans import Span

from ..record import RequestRecord, TraceIds
from .tree import settlement, tree

_TRACEPARENT = b"traceparent"
_NO_FAILOVER = frozenset(
    {"refused", "busy"}
)  # ends of attempts whose engine did not take the request, as when all are full


class Queue(Protocol):
    def put(self, trace: Callable[[], Sequence[Span]]) -> None:
        """Takes what makes the spans of one trace. Never waits and never raises."""


class Keeping(NamedTuple):
    """Which requests are exported although their trace is not sampled: those with trouble, and slow ones."""

    troubled: bool
    slow_s: float


class Tracer:
    """There is one in each process. It costs a request its ids, and the writing of its spans if it is exported."""

    def __init__(self, queue: Queue, sampling: Sampling, keeping: Keeping, *, joins_client: bool) -> None:
        """joins_client: a client's `traceparent` names the trace."""
        self._queue = queue
        self._sampling = sampling
        self._keeping = keeping
        self._joins_client = joins_client

    def begin(self, headers: Sequence[tuple[bytes, bytes]], record: RequestRecord) -> None:
        """Gives the request's record its trace id and span id, and decides if the trace is sampled.

        The trace id comes from the client's `traceparent` if clients may name it, and is new otherwise. Several such
        headers count as none, as the standard says.
        """
        parent = None
        if self._joins_client:
            found = [value for name, value in headers if name == _TRACEPARENT]
            parent = w3c.parse(found[0]) if len(found) == 1 else None
        if parent is None:
            trace_id, parent_id = w3c.new_trace_id(), 0
        else:
            trace_id, parent_id = parent.trace_id, parent.span_id
        record.trace = TraceIds(trace_id, w3c.new_span_id(), parent_id, self._sampling.samples(trace_id, parent))

    def ended(self, record: RequestRecord, ended_at: float) -> None:
        """Takes the record of a request that has ended, and does not change any more."""
        if record.trace is None:
            return
        kept = None if record.trace.sampled else self._why_kept(record, ended_at)
        if record.trace.sampled or kept is not None:
            self._queue.put(partial(tree, record, ended_at, wall_clock(), kept))

    def settles(self, record: RequestRecord) -> Callable[[], None] | None:
        """Returns what is called once the request's settlement is in Redis, which makes its span."""
        ids, began_at = record.trace, time.perf_counter()
        if ids is None or not ids.sampled:
            return None

        def written() -> None:
            self._queue.put(partial(settlement, ids, began_at, time.perf_counter(), wall_clock()))

        return written

    def _why_kept(self, record: RequestRecord, ended_at: float) -> str | None:
        if not self._keeping.troubled:
            return None
        if record.is_servers_fault:
            return "error"
        if record.failovers or not _NO_FAILOVER.issuperset(attempt.end for attempt in record.attempts[:-1]):
            return "failover"
        waited_s = ended_at - record.started if record.ttft_s is None else record.ttft_s
        return "slow" if waited_s >= self._keeping.slow_s else None


def wall_clock() -> Callable[[float], int]:
    """Returns a function from seconds of `time.perf_counter` to nanoseconds since 1970, by today's difference."""
    ahead_ns = time.time_ns() - time.perf_counter_ns()
    return lambda seconds: round(seconds * 1e9) + ahead_ns
