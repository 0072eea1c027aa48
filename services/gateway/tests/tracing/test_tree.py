"""The spans that are made of a request's record, whatever became of the request."""

from __future__ import annotations

import math
from typing import Any

import pytest
from cloudach_gateway.errors import GatewayError, InvalidApiKey, InvalidRequest, UpstreamError
from cloudach_gateway.proxy.placing.cause import Cause
from cloudach_gateway.record import AttemptRecord, FailedOver, RequestRecord, TraceIds, Wait
from cloudach_gateway.tracing.tree import settlement, tree
from cloudach_service.otlp import protobuf
from cloudach_service.traces import encoding
from cloudach_service.traces.spans import Span
from hypothesis import given
from hypothesis import strategies as some
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

IDS = TraceIds(1, 2, 3, sampled=True)
MOST_TEXT = 200  # characters: what is longer was chosen by a client or an engine


def clock(seconds: float) -> int:
    return round(seconds * 1e9)


def exported(spans: list[Span]) -> list[Any]:
    """Returns the spans as a receiver reads them."""
    message = protobuf.request({}, ("", ""), [encoding.span(span) for span in spans])
    return [*ExportTraceServiceRequest.FromString(message).resource_spans[0].scope_spans[0].spans]


def told(span: Any) -> dict[str, Any]:
    found = {}
    for pair in span.attributes:
        assert pair.key not in found, f"{pair.key} stands there twice"
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        found[pair.key] = [one.string_value for one in value.values] if kind == "array_value" else value
    return found


def request(**known: Any) -> RequestRecord:
    given = {"route": "chat/completions", "trace": IDS, "started": 10.0, "status": 200, "model": "m", "stream": True}
    return RequestRecord("POST", "/v1/chat/completions", **{**given, **known})


def attempt(number: int, end: str, began_at: float = 11.0, ended_at: float | None = 12.0) -> AttemptRecord:
    return AttemptRecord(
        f"http://engine-{number}:8000",
        [],
        "vllm",
        100 + number,
        began_at=began_at,
        first_token_at=began_at + 0.25,
        ended_at=ended_at,
        end=end,
    )


_TIMES = some.floats(0, 1000).map(lambda seconds: 10 + seconds)
_ERRORS = some.sampled_from([InvalidApiKey("no"), UpstreamError("broken"), InvalidRequest("no", code="invalid_value")])
_ATTEMPTS = some.builds(
    attempt,
    number=some.integers(0, 3),
    end=some.sampled_from([cause.label for cause in Cause]),
    began_at=_TIMES,
    ended_at=some.none() | _TIMES,
)
_RECORDS = some.builds(
    request,
    status=some.none() | some.sampled_from([200, 400, 401, 404, 429, 499, 500, 503]),
    outcome=some.sampled_from([None, "finished", "cancelled", "failed"]),
    error=some.none() | _ERRORS,
    model=some.none() | some.just("m"),
    admission=some.none() | some.tuples(_TIMES, _TIMES),
    redis_s=some.none() | some.floats(0, 1),
    waits=some.lists(some.builds(Wait, some.sampled_from(["wake", "pause"]), _TIMES, _TIMES), max_size=3),
    attempts=some.lists(_ATTEMPTS, max_size=4),
    failovers=some.lists(some.builds(FailedOver, some.just("lost"), some.integers(0, 9), _TIMES, _TIMES), max_size=2),
    finish_reasons=some.lists(some.sampled_from(["stop", "length"]), max_size=3).map(tuple),
)


@given(_RECORDS)
def test_every_record_is_one_tree_whose_tokens_stand_once(record: RequestRecord) -> None:
    spans = exported(tree(record, 2000.0, clock, None))
    root, *inner = spans
    assert {span.trace_id for span in spans} == {(1).to_bytes(16)}
    assert (root.span_id, root.parent_span_id) == ((2).to_bytes(8), (3).to_bytes(8))
    assert {span.parent_span_id for span in inner} <= {root.span_id}
    expected = (record.admission is not None) + len(record.waits) + len(record.attempts)
    assert len(inner) == expected
    assert sum("gen_ai.usage.output_tokens" in told(span) for span in spans) == bool(record.attempts)
    assert len(root.events) == len(record.failovers)
    assert all(len(str(value)) < MOST_TEXT for span in spans for value in told(span).values())


def test_an_attempt_that_the_record_never_saw_end_ends_with_the_request() -> None:
    (_, span) = exported(tree(request(attempts=[attempt(1, "", ended_at=None)]), 20.0, clock, None))
    assert span.end_time_unix_nano == clock(20.0)


def test_the_last_attempt_has_the_tokens_and_only_it() -> None:
    record = request(
        attempts=[attempt(1, "lost"), attempt(2, "completed")],
        prompt_tokens=7,
        completion_tokens=5,
        finish_reasons=("stop",),
        failovers=[FailedOver("lost", 3, 0.5, 11.5)],
    )
    root, first, second = exported(tree(record, 20.0, clock, None))
    assert "gen_ai.usage.input_tokens" not in told(first)
    assert (told(second)["gen_ai.usage.input_tokens"], told(second)["gen_ai.usage.output_tokens"]) == (7, 5)
    assert told(second)["gen_ai.response.finish_reasons"] == ["stop"]
    assert (first.status.code, second.status.code, root.status.code) == (2, 0, 0)
    assert math.isclose(told(second)["gen_ai.response.time_to_first_chunk"], 0.25)


@pytest.mark.parametrize(
    ("status", "outcome", "error", "failed"),
    [
        (200, "finished", None, False),
        (200, "cancelled", None, False),
        (200, "failed", UpstreamError("broken"), True),
        (400, "failed", InvalidRequest("An engine refused it."), False),
        (401, None, InvalidApiKey("no"), False),
        (502, "failed", UpstreamError("broken"), True),
        (None, "cancelled", None, False),
    ],
)
def test_a_span_of_a_server_fails_as_the_conventions_say(
    status: int | None, outcome: str | None, error: GatewayError | None, failed: bool
) -> None:
    (root,) = exported(tree(request(status=status, outcome=outcome, error=error), 20.0, clock, None))
    assert (root.status.code == 2) is failed
    assert told(root).get("http.response.status_code") == status, "a client that left got no status"
    assert ("error.type" in told(root)) is (error is not None)


@pytest.mark.parametrize("code", ["planted prompt", "x" * 100_000, "kilimanjaro", "é"])
def test_an_engines_code_of_an_error_gets_into_no_span(code: str) -> None:
    error = InvalidRequest("An engine refused it.", code=code)
    refused = request(status=400, outcome="failed", error=error, attempts=[attempt(1, "request_refused")])
    root, asked = exported(tree(refused, 20.0, clock, None))
    assert (told(root)["error.type"], told(asked)["error.type"]) == ("invalid_request_error", "request_refused")


@pytest.mark.parametrize("reason", ["planted words", ["stop"], {"a": 1}, 7, True])
def test_an_engines_finish_reason_gets_into_no_span(reason: Any) -> None:
    record = request(attempts=[attempt(1, "completed")], finish_reasons=(reason, "stop"))
    (_, span) = exported(tree(record, 20.0, clock, None))
    assert told(span)["gen_ai.response.finish_reasons"] == ["other", "stop"]


def test_a_code_of_ours_is_told() -> None:
    error = InvalidRequest("It is too long.", code="context_length_exceeded")
    for attempts in ([], [attempt(1, "request_refused")]):
        root = exported(tree(request(status=400, error=error, attempts=attempts), 20.0, clock, None))[0]
        assert told(root)["error.type"] == "context_length_exceeded"


def test_a_clients_path_and_method_get_into_no_span() -> None:
    (root,) = exported(tree(RequestRecord("PLANTED", "/planted", trace=IDS, status=404), 1e9, clock, None))
    assert b"planted" not in root.SerializeToString().lower()
    assert root.name == "_OTHER"


def test_a_trace_has_a_bound() -> None:
    """A request may wait and be asked again for as long as its time lasts."""
    waits = [Wait("pause", 10.0 + at, 10.5 + at) for at in range(10_000)]
    record = request(waits=waits, attempts=[attempt(1, "refused") for _ in range(10_000)])
    spans = tree(record, 20.0, clock, None)
    assert len(spans) <= 300
    assert sum("gen_ai.usage.output_tokens" in told(span) for span in exported(spans)) == 1


def test_a_settlement_is_below_its_request() -> None:
    (span,) = exported(settlement(IDS, 1.0, 1.5, clock))
    assert (span.name, span.trace_id, span.parent_span_id) == ("settle", (1).to_bytes(16), (2).to_bytes(8))
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (clock(1.0), clock(1.5))
