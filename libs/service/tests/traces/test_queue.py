"""The queue of traces: each is exported or counted as dropped, once, whatever the receiver does."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest
from cloudach_service.traces.queue import Trace, TraceQueue
from cloudach_service.traces.spans import Kind, Span
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE_S = 20.0
FOREVER_S = 3600.0


class Counts:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.found: Counter[str] = Counter()

    def exported(self, traces: int) -> None:
        self._add("exported", traces)

    def dropped(self, reason: str, traces: int) -> None:
        self._add(reason, traces)

    def until(self, traces: int) -> Counter[str]:
        """Returns the counts once there are so many traces in them."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.found.total() >= traces, PATIENCE_S), self.found
            return Counter(self.found)

    def _add(self, name: str, traces: int) -> None:
        with self._changed:
            self.found[name] += traces
            self._changed.notify_all()


class Receiver:
    """Takes messages, or does with them what a test says."""

    def __init__(self, answer: Callable[[], str | None] = lambda: None) -> None:
        self.answer = answer
        self.called = threading.Event()
        self.spans: list[str] = []
        self.messages = 0

    def send(self, message: bytes) -> str | None:
        self.called.set()
        problem = self.answer()
        if problem is None:
            self.messages += 1
            (resource,) = ExportTraceServiceRequest.FromString(message).resource_spans
            self.spans += [span.name for span in resource.scope_spans[0].spans]
        return problem

    def close(self) -> None:
        """Has nothing to close."""


class Hanging(Receiver):
    """Answers nothing until it is let go, as a receiver does that accepts and never answers."""

    def __init__(self) -> None:
        super().__init__(self._hang)
        self.let_go = threading.Event()

    def _hang(self) -> None:
        assert self.let_go.wait(PATIENCE_S)


def trace(name: str, spans: int = 1) -> Trace:
    return lambda: [Span(1, 1, 0, name, Kind.SERVER, 0, 0, {}) for _ in range(spans)]


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def opened(counts: Counts) -> Iterator[Callable[..., TraceQueue]]:
    queues: list[TraceQueue] = []

    def open_queue(receiver: Receiver, *, most: int = 2048, delay_s: float = 0.01) -> TraceQueue:
        queues.append(TraceQueue(receiver, {}, ("tests", "1"), counts, most=most, delay_s=delay_s))
        return queues[-1]

    yield open_queue
    for queue in queues:
        queue.close(PATIENCE_S)


Opened = Callable[..., TraceQueue]


def test_each_trace_is_exported_once(counts: Counts, opened: Opened) -> None:
    receiver = Receiver()
    queue = opened(receiver)
    names = [f"trace {number}" for number in range(1500)]
    for name in names:
        queue.put(trace(name, spans=2))
    assert counts.until(1500) == {"exported": 1500}
    assert receiver.spans == [name for name in names for _ in range(2)]
    assert receiver.messages > 1, "a message has a bound"


def test_what_waits_is_sent_at_the_end(counts: Counts, opened: Opened) -> None:
    receiver = Receiver()
    queue = opened(receiver, delay_s=FOREVER_S)
    for number in range(5):
        queue.put(trace(str(number)))
    queue.close(PATIENCE_S)
    assert (counts.found, len(receiver.spans)) == ({"exported": 5}, 5)
    queue.put(trace("too late"))
    assert counts.found == {"exported": 5, "shutdown": 1}


def test_a_short_queue_is_emptied_before_it_is_full(counts: Counts, opened: Opened) -> None:
    """The thread has to be told before the queue is full, however short that is."""
    queue = opened(Receiver(), most=8, delay_s=FOREVER_S)
    for number in range(8):
        queue.put(trace(str(number)))
    assert counts.until(4)["exported"] >= 4


def test_past_a_hanging_receiver_traces_are_dropped_and_counted(counts: Counts, opened: Opened) -> None:
    receiver = Hanging()
    queue = opened(receiver, most=10)
    queue.put(trace("on its way"))
    assert receiver.called.wait(PATIENCE_S)
    for number in range(25):
        queue.put(trace(str(number)))
    assert counts.found == {"queue_full": 15}
    receiver.let_go.set()
    assert counts.until(26) == {"queue_full": 15, "exported": 11}


def test_the_end_does_not_wait_for_a_hanging_receiver(counts: Counts, opened: Opened) -> None:
    receiver = Hanging()
    queue = opened(receiver, most=10)
    queue.put(trace("on its way"))
    assert receiver.called.wait(PATIENCE_S)
    for number in range(4):
        queue.put(trace(str(number)))
    queue.close(0.05)
    assert counts.found == {"shutdown": 5}
    receiver.let_go.set()
    queue.close(PATIENCE_S)
    assert counts.found == {"shutdown": 5}, "each trace is counted once"


def test_traces_that_are_refused_are_counted_and_said_once(
    counts: Counts, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver = Receiver(lambda: "503")
    queue = opened(receiver)
    for number in range(1, 4):
        queue.put(trace(str(number)))
        assert counts.until(number) == {"export_failed": number}
    receiver.answer = lambda: None
    queue.put(trace("taken"))
    assert counts.until(4) == {"export_failed": 3, "exported": 1}
    queue.close(PATIENCE_S)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_one_broken_trace_takes_no_other_with_it(counts: Counts, opened: Opened) -> None:
    def broken() -> Sequence[Span]:
        raise TypeError("unhashable")

    receiver = Receiver()
    queue = opened(receiver)
    for made in (trace("before"), broken, trace("after")):
        queue.put(made)
    assert counts.until(3) == {"exported": 2, "broken": 1}
    assert receiver.spans == ["before", "after"]


def test_a_sender_that_raises_ends_no_thread(counts: Counts, opened: Opened) -> None:
    """gRPC's exporter raises TypeError for a call that ends without trailing metadata."""

    def raises() -> None:
        raise TypeError("'NoneType' object is not iterable")

    receiver = Receiver(raises)
    queue = opened(receiver)
    queue.put(trace("lost"))
    assert counts.until(1) == {"export_failed": 1}
    receiver.answer = lambda: None
    queue.put(trace("taken"))
    assert counts.until(2) == {"export_failed": 1, "exported": 1}


def test_half_broken_trace_is_dropped_whole(counts: Counts, opened: Opened) -> None:
    good = Span(1, 1, 0, "half", Kind.SERVER, 0, 0, {})
    receiver = Receiver()
    queue = opened(receiver)
    queue.put(lambda: [good, good._replace(start_ns=-1)])
    queue.put(trace("whole"))
    assert counts.until(2) == {"exported": 1, "broken": 1}
    assert receiver.spans == ["whole"]
