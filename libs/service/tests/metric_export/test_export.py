"""The thread that exports metrics: at an interval, once more at the end, and never longer than it may take."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from cloudach_service.metric_export.export import MetricExport

PATIENCE_S = 20.0


class Receiver:
    def __init__(self, answer: Callable[[], str | None] = lambda: None) -> None:
        self.answer = answer
        self.messages: list[bytes] = []
        self.sent = threading.Semaphore(0)
        self.closed = threading.Event()

    def send(self, message: bytes) -> str | None:
        problem = self.answer()
        if problem is None:
            self.messages.append(message)
        self.sent.release()
        return problem

    def close(self) -> None:
        self.closed.set()


class Counts:
    def __init__(self) -> None:
        self.results: list[str] = []

    def exported(self, result: str) -> None:
        self.results.append(result)


def numbered() -> Callable[[], bytes]:
    numbers = iter(range(1, 1_000_000))
    return lambda: b"%d" % next(numbers)


def test_values_are_sent_again_and_again_and_at_the_end() -> None:
    receiver, counts = Receiver(), Counts()
    export = MetricExport(numbered(), receiver, counts, interval_s=0.01)
    for _ in range(3):
        assert receiver.sent.acquire(timeout=PATIENCE_S)
    export.close(PATIENCE_S)
    assert receiver.messages == [b"%d" % number for number in range(1, len(receiver.messages) + 1)]
    assert counts.results == ["taken"] * len(receiver.messages)
    assert receiver.closed.is_set()


def test_only_the_last_values_are_sent_where_the_end_comes_first() -> None:
    receiver = Receiver()
    MetricExport(numbered(), receiver, Counts(), interval_s=3600).close(PATIENCE_S)
    assert receiver.messages == [b"1"]


def test_trouble_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answers: list[str | None] = ["no room", "no room", None, None]
    receiver, counts = Receiver(lambda: answers.pop(0) if answers else None), Counts()
    export = MetricExport(numbered(), receiver, counts, interval_s=0.01)
    for _ in range(4):
        assert receiver.sent.acquire(timeout=PATIENCE_S)
    export.close(PATIENCE_S)
    assert counts.results[:4] == ["failed", "failed", "taken", "taken"]
    assert caplog.messages == [
        "the receiver of metrics does not take them: no room",
        "the receiver of metrics takes them again",
    ]


def test_a_message_that_cannot_be_written_does_not_end_the_thread() -> None:
    def broken() -> bytes:
        raise RuntimeError("with a secret")

    counts, receiver = Counts(), Receiver()
    MetricExport(broken, receiver, counts, interval_s=3600).close(PATIENCE_S)
    assert (counts.results, receiver.messages) == (["failed"], [])


def test_the_end_does_not_wait_for_a_receiver_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    called, released = threading.Event(), threading.Event()

    def hang() -> str | None:
        called.set()
        released.wait()
        return None

    receiver = Receiver(hang)
    export = MetricExport(numbered(), receiver, Counts(), interval_s=0.01)
    assert called.wait(PATIENCE_S)
    export.close(0.05)
    assert receiver.closed.is_set()
    assert caplog.messages == ["the last metrics could not be exported before the end"]
    released.set()
