"""Senders of traces tell a receiver's troubles in words, and leave the log to the queue."""

from __future__ import annotations

import logging
import threading

import pytest
from cloudach_service.otlp import protobuf
from cloudach_service.traces import encoding, senders
from cloudach_service.traces.sampling import Sampling
from cloudach_service.traces.senders import Sender
from cloudach_service.traces.settings import Exporting, Protocol
from cloudach_service.traces.spans import Kind, Span

from tests.support.collector import Collector
from tests.support.ports import free_port

MESSAGE = protobuf.request({}, ("tests", "1"), [encoding.span(Span(5, 6, 0, "one", Kind.SERVER, 1, 2, {"a": 1}))])
PROTOCOLS: list[Protocol] = ["http/protobuf", "grpc"]

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)


def sender(protocol: Protocol, url: str) -> Sender:
    endpoint = url + "/v1/traces" if protocol == "http/protobuf" else url
    return senders.sender(Exporting(endpoint, protocol, Sampling()))


@pytest.fixture(autouse=True)
def in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")


def test_what_arrives(protocol: Protocol) -> None:
    with Collector(protocol) as collector:
        one = sender(protocol, collector.url)
        assert [one.send(MESSAGE) for _ in range(2)] == [None, None]
        one.close()
        assert [(span.name, span.trace, span.attributes) for span in collector.spans] == [
            ("one", f"{5:032x}", {"a": 1})
        ] * 2


@pytest.mark.parametrize("trouble", ["refuses", "hangs", "absent"])
def test_what_does_not_arrive_is_explained_and_not_logged(
    protocol: Protocol, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="opentelemetry")
    with Collector(protocol, "takes" if trouble == "absent" else trouble) as collector:
        url = f"http://127.0.0.1:{free_port()}" if trouble == "absent" else collector.url
        one = sender(protocol, url)
        problem = one.send(MESSAGE)
        one.close()
    assert problem is not None
    assert any(word in problem.lower() for word in ("unavailable", "refused", "timed out", "deadline")), problem
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_to_close_ends_a_call_that_tries_again(protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    with Collector(protocol, "refuses") as collector:
        one = sender(protocol, collector.url)
        found: list[str | None] = []
        thread = threading.Thread(target=lambda: found.append(one.send(MESSAGE)))
        thread.start()
        assert collector.called.wait(20)
        one.close()
        thread.join(20)
        assert [problem is not None for problem in found] == [True]
