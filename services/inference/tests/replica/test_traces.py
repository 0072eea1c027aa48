"""Where engines export their spans, and the span of what is broken off. vLLM's own: tests/e2e/test_traces_vllm.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from cloudach_inference.replica.aborted import tell_of_aborted
from cloudach_inference.replica.traces import Exported, exported, makes_spans
from cloudach_service.settings import ConfigError

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def asked(**environ: str) -> Exported | None:
    return exported(environ, "org/model,1", "pod-1", "r1")


def test_vllm_is_told_the_whole_url_and_the_protocol() -> None:
    found = asked(**HERE)
    assert found is not None
    assert found.endpoint == found.variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "http://collector:4318/v1/traces"
    assert found.variables["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf", "vLLM's default is grpc"
    assert found.variables["OTEL_SERVICE_NAME"] == "cloudach-engine"
    assert found.variables["OTEL_BSP_SCHEDULE_DELAY"] == "1000"
    told = found.variables["OTEL_RESOURCE_ATTRIBUTES"].split(",")
    assert "cloudach.model=org%2Fmodel%2C1" in told
    assert {"host.name=pod-1", "service.instance.id=r1", "service.namespace=cloudach"} < set(told)
    grpc = asked(**HERE, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert grpc is not None
    assert (grpc.endpoint, grpc.variables["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"]) == ("http://collector:4318", "grpc")


def test_what_the_operator_says_of_the_service_stands() -> None:
    found = asked(
        **HERE, OTEL_SERVICE_NAME="engines", OTEL_RESOURCE_ATTRIBUTES="host.name=mine", OTEL_BSP_SCHEDULE_DELAY="50"
    )
    assert found is not None
    assert found.variables["OTEL_SERVICE_NAME"] == "engines"
    assert found.variables["OTEL_RESOURCE_ATTRIBUTES"].endswith(",host.name=mine"), "the last one counts"
    assert found.variables["OTEL_BSP_SCHEDULE_DELAY"] == "50"


@pytest.mark.parametrize(
    "environ", [{}, {**HERE, "OTEL_TRACES_EXPORTER": "none"}, {**HERE, "OTEL_SDK_DISABLED": "true"}]
)
def test_it_can_be_switched_off(environ: dict[str, str]) -> None:
    assert asked(**environ) is None


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json'"):
        asked(**HERE, OTEL_EXPORTER_OTLP_PROTOCOL="http/json")


def test_an_engine_without_statistics_makes_no_spans() -> None:
    assert makes_spans({"max_model_len": 5, "disable_log_stats": False})
    assert not makes_spans({"disable_log_stats": True})
    assert not makes_spans({"disable-log-stats": True})


@dataclass
class Stats:
    arrival_time: float = 100.0
    num_generation_tokens: int = 5
    queued_ts: float = 1.0
    scheduled_ts: float = 1.5
    first_token_ts: float = 2.0
    last_token_ts: float = 4.0
    first_token_latency: float = 1.25


@dataclass
class State:
    external_req_id: str
    stats: Stats = field(default_factory=Stats)
    prompt_len: int = 7
    top_p: float | None = 1.0
    max_tokens_param: int | None = 64
    temperature: float | None = 0.0
    n: int | None = 1


@dataclass
class Request:
    request_id: str
    trace_headers: Mapping[str, str] | None = None


class Processor:
    """As vLLM's OutputProcessor: aborting a request with several choices aborts each of them in a call within."""

    def __init__(self) -> None:
        self.request_states: dict[str, State] = {}
        self.choices: dict[str, list[str]] = {}

    def add_request(self, request: Request, prompt: str | None, **_: Any) -> None:
        self.request_states[request.request_id] = State(f"chatcmpl-{request.request_id}")

    def abort_requests(self, request_ids: Any, internal: bool) -> list[str]:
        stopped = []
        for name in request_ids:
            if self.request_states.pop(name, None) is not None:
                stopped.append(name)
            elif name in self.choices:
                stopped += self.abort_requests(self.choices.pop(name), internal=True)
        return stopped


Told = list[tuple[int, dict[str, Any], Mapping[str, str] | None]]


def watched(processor: Processor) -> Told:
    told: Told = []
    tell_of_aborted(processor, lambda *what: told.append(what), clock=lambda: 103.0)
    return told


def test_an_aborted_request_is_told_once_with_its_headers() -> None:
    processor = Processor()
    told = watched(processor)
    headers = {"traceparent": "00-1-2-01"}
    processor.add_request(Request("a", headers), None)
    processor.add_request(Request("b"), None)
    assert processor.abort_requests(iter(["a", "a", "gone"]), internal=True) == ["a"]
    assert processor.abort_requests(["a"], True) == []
    ((began, attributes, with_headers),) = told
    assert (began, with_headers) == (100_000_000_000, headers)
    assert attributes == {
        "gen_ai.request.id": "chatcmpl-a",
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.n": 1,
        "gen_ai.usage.prompt_tokens": 7,
        "gen_ai.usage.completion_tokens": 5,
        "gen_ai.response.finish_reasons": ["abort"],
        "gen_ai.latency.e2e": 3.0,
        "gen_ai.latency.time_in_queue": 0.5,
        "gen_ai.latency.time_to_first_token": 1.25,
        "gen_ai.latency.time_in_model_prefill": 0.5,
        "gen_ai.latency.time_in_model_decode": 2.0,
        "gen_ai.latency.time_in_model_inference": 2.5,
    }


def test_each_choice_is_told_once() -> None:
    processor = Processor()
    told = watched(processor)
    for name in ("0_a", "1_a"):
        processor.add_request(Request(name), None)
    processor.choices["a"] = ["0_a", "1_a"]
    assert processor.abort_requests(["a"], internal=True) == ["0_a", "1_a"]
    assert [attributes["gen_ai.request.id"] for _, attributes, _ in told] == ["chatcmpl-0_a", "chatcmpl-1_a"]


def test_nothing_is_made_up_of_a_request_that_still_waited() -> None:
    processor = Processor()
    told = watched(processor)
    processor.add_request(Request("a"), None)
    processor.request_states["a"].stats = Stats(num_generation_tokens=0, scheduled_ts=0.0, first_token_ts=0.0)
    processor.abort_requests(["a"], internal=True)
    ((_, attributes, _),) = told
    assert [name for name in attributes if name.startswith("gen_ai.latency")] == ["gen_ai.latency.e2e"]


def test_a_span_that_cannot_be_made_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    processor = Processor()

    def broken(*_: Any) -> None:
        raise RuntimeError("planted")

    tell_of_aborted(processor, broken)
    processor.add_request(Request("a"), None)
    processor.add_request(Request("b"), None)
    assert processor.abort_requests(["a", "b"], internal=True) == ["a", "b"]
    assert "RuntimeError" in caplog.text
    assert "planted" not in caplog.text
