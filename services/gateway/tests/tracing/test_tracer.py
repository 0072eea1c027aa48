"""Which requests are exported, and what their engines are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cloudach_gateway.errors import ClientTooSlow, InvalidRequest, UpstreamError
from cloudach_gateway.record import AttemptRecord, FailedOver, RequestRecord
from cloudach_gateway.tracing.tracer import Keeping, Tracer
from cloudach_service.traces import w3c
from cloudach_service.traces.sampling import Sampling
from cloudach_service.traces.spans import Span

TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
FROM_CLIENT = [(b"host", b"h"), (b"traceparent", f"00-{TRACE}-{CLIENT}-01".encode()), (b"tracestate", b"a=b")]
NOT_SAMPLED = [(b"traceparent", f"00-{TRACE}-{CLIENT}-00".encode())]


class Kept:
    def __init__(self) -> None:
        self.traces: list[list[Span]] = []

    def put(self, trace: Callable[[], Sequence[Span]]) -> None:
        self.traces.append([*trace()])


def tracer(
    ratio: float = 1.0, *, slow_s: float = 10.0, troubled: bool = True, joins: bool = True
) -> tuple[Tracer, Kept]:
    kept = Kept()
    return Tracer(kept, Sampling(ratio), Keeping(troubled, slow_s), joins_client=joins), kept


def begun(one: Tracer, headers: Sequence[tuple[bytes, bytes]] = (), **known: Any) -> RequestRecord:
    record = RequestRecord("POST", "/v1/chat/completions", route="chat/completions", status=200, **known)
    one.begin(headers, record)
    return record


def attempts(*ends: str) -> list[AttemptRecord]:
    return [AttemptRecord("http://e:1", [], end=end) for end in ends]


def test_a_clients_trace_goes_on() -> None:
    one, _ = tracer(0.0)
    ids = begun(one, FROM_CLIENT).trace
    assert ids is not None
    assert (f"{ids.trace_id:032x}", f"{ids.parent_id:016x}", ids.sampled) == (TRACE, CLIENT, True)
    assert ids.span_id not in (0, ids.parent_id)


@pytest.mark.parametrize("headers", [[], [*FROM_CLIENT, *NOT_SAMPLED], [(b"traceparent", b"00-planted")]])
def test_without_one_valid_header_a_trace_begins(headers: list[tuple[bytes, bytes]]) -> None:
    one, _ = tracer()
    ids = begun(one, headers).trace
    assert ids is not None
    assert (ids.parent_id, ids.sampled) == (0, True)
    assert f"{ids.trace_id:032x}" != TRACE


def test_a_client_may_be_ignored() -> None:
    one, _ = tracer(0.0, joins=False)
    ids = begun(one, FROM_CLIENT).trace
    assert ids is not None
    assert (ids.parent_id, ids.sampled) == (0, False)


@pytest.mark.parametrize("headers", [FROM_CLIENT, NOT_SAMPLED])
def test_an_engine_hears_of_its_own_attempt_only(headers: list[tuple[bytes, bytes]]) -> None:
    one, _ = tracer()
    record = begun(one, headers)
    asked = [AttemptRecord("http://e:1", [(b"x-request-id", b"r")]) for _ in range(2)]
    for each in asked:
        record.attempt_began(each)
    assert record.trace is not None
    flag = headers[-1 if headers is NOT_SAMPLED else 1][1][-2:]
    for each in asked:
        assert dict(each.headers)[b"traceparent"] == b"00-%s-%016x-%s" % (TRACE.encode(), each.span_id, flag)
        assert [name for name, _ in each.headers] == [b"x-request-id", b"traceparent"]
    assert len({each.span_id for each in asked} | {record.trace.span_id, 0}) == 4


def test_without_a_tracer_an_engine_hears_nothing() -> None:
    record = RequestRecord("POST", "/")
    attempt = AttemptRecord("http://e:1", [])
    record.attempt_began(attempt)
    assert (attempt.headers, attempt.span_id) == ([], 0)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"outcome": "finished", "ttft_s": 0.1}, None),
        ({"outcome": "cancelled", "ttft_s": 0.1}, None),
        ({"outcome": "finished", "ttft_s": 10.0}, "slow"),
        ({"outcome": "finished", "failovers": [FailedOver("lost", 1, 0.1, 1.0)]}, "failover"),
        ({"outcome": "finished", "attempts": attempts("lost", "completed"), "ttft_s": 0.1}, "failover"),
        ({"outcome": "finished", "attempts": attempts("busy", "refused", "completed"), "ttft_s": 0.1}, None),
        ({"outcome": "failed", "error": UpstreamError("broken"), "ttft_s": 0.1}, "error"),
        (
            {"outcome": "failed", "error": UpstreamError("broken"), "failovers": [FailedOver("lost", 1, 0.1, 1.0)]},
            "error",
        ),
        ({"outcome": "failed", "error": InvalidRequest("An engine refused it.")}, None),
        ({"error": InvalidRequest("It cannot be read.")}, None),
        ({"outcome": "cancelled", "error": ClientTooSlow(), "ttft_s": 0.1}, None),
    ],
)
def test_what_is_not_sampled_is_kept_for_its_trouble(known: dict[str, Any], reason: str | None) -> None:
    for troubled in (True, False):
        one, kept = tracer(0.0, troubled=troubled)
        record = begun(one, **known)
        if isinstance(record.error, InvalidRequest):
            record.status = 400
        one.ended(record, record.started + 0.2)
        found = [spans[0].attributes["cloudach.kept"] for spans in kept.traces]
        assert found == ([reason] if reason and troubled else [])


def test_a_sampled_request_is_exported_once_and_its_settlement_once() -> None:
    one, kept = tracer()
    record = begun(one, outcome="finished")
    written = one.settles(record)
    one.ended(record, record.started + 0.2)
    assert written is not None
    written()
    assert [[span.name for span in spans] for spans in kept.traces] == [["POST /v1/chat/completions"], ["settle"]]


def test_a_settlement_that_is_not_sampled_costs_nothing() -> None:
    one, kept = tracer(0.0)
    assert one.settles(begun(one, outcome="failed")) is None
    assert kept.traces == []


def test_ids_are_not_drawn_twice() -> None:
    assert len({w3c.new_span_id() for _ in range(10_000)}) == 10_000
