"""One trace from the client to the engines: gateway and simulators export to one receiver, each from its process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.data_plane.conftest import PATIENT, chat
from tests.support.collector import Collector, Received
from tests.support.stack import Gateway, Simulator, create_key, served_by, start_gateway, start_sim
from tests.support.waiting import until

CLIENT = "00f067aa0ba902b7"


@dataclass
class Traced:
    sims: list[Simulator]
    gateway: Gateway
    collector: Collector
    key: str

    def post(self, trace: str, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}", "traceparent": f"00-{trace}-{CLIENT}-01"}
        return httpx.post(f"{self.gateway.base_url}/chat/completions", json=chat(**body), headers=headers, timeout=30)


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"])
def one(request: pytest.FixtureRequest) -> Iterator[Traced]:
    with ExitStack() as stack:
        collector = stack.enter_context(Collector(request.param))
        traces = {"traces_endpoint": collector.url, "traces_protocol": request.param}
        sims = [stack.enter_context(start_sim(rate=200, model="sim", **traces)) for _ in range(2)]
        telemetry = {"traces": {"endpoint": collector.url, "protocol": request.param}}
        config = {"models": [served_by(*sims)], "timeouts": PATIENT, "telemetry": telemetry}
        gateway = stack.enter_context(start_gateway(config))
        yield Traced(sims, gateway, collector, create_key(gateway))


def new_trace() -> str:
    return f"{random.getrandbits(128):032x}"


def told(one: Traced, trace: str) -> list[Received]:
    """Returns a trace's spans but those of waits, of which there may be some, in the order of their beginnings."""
    found = [span for span in one.collector.spans if span.trace == trace and span.name != "turn"]
    return sorted(found, key=lambda span: span.start_ns)


def engine_span_of(spans: list[Received], attempt: Received) -> Received:
    (found,) = [span for span in spans if span.name == "llm_request" and span.parent == attempt.span]
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_an_attempt_is_the_parent_of_its_engines_span(one: Traced, stream: bool) -> None:
    trace = new_trace()
    answer = one.post(trace, max_tokens=5, stream=stream)
    assert answer.status_code == 200
    spans = one.collector.trace(trace, spans=5)
    (attempt,) = [span for span in spans if span.name == "chat sim"]
    engine = engine_span_of(spans, attempt)
    assert (engine.service, engine.kind, engine.failed) == ("cloudach-engine", "SERVER", False)
    assert engine.process != attempt.process
    assert attempt.start_ns <= engine.start_ns < attempt.end_ns, "its end may be seen before the engine is done"
    assert engine.attributes["gen_ai.request.id"] == f"chatcmpl-{answer.headers['x-request-id']}"
    used = (engine.attributes["gen_ai.usage.prompt_tokens"], engine.attributes["gen_ai.usage.completion_tokens"])
    assert used == (attempt.attributes["gen_ai.usage.input_tokens"], attempt.attributes["gen_ai.usage.output_tokens"])


def test_a_failed_over_stream_is_one_trace_from_the_client_to_both_engines(one: Traced) -> None:
    for sim in one.sims:
        sim.reset()
    one.sims[0].arm("end@6", times=None)
    for _ in range(20):  # until the engine that breaks is the one that is asked first
        trace = new_trace()
        assert one.post(trace, max_tokens=30, stream=True).text.endswith("data: [DONE]\n\n")
        if one.sims[0].requests():
            break
    one.sims[0].reset()
    until(lambda: len(told(one, trace)) == 7, "all spans")
    spans = told(one, trace)
    (request,) = [span for span in spans if span.name == "POST /v1/chat/completions"]
    first, second = [span for span in spans if span.name == "chat sim"]
    at_first, at_second = engine_span_of(spans, first), engine_span_of(spans, second)
    assert request.parent == CLIENT
    assert {first.parent, second.parent} == {request.span}
    assert len({request.process, at_first.process, at_second.process}) == 3
    assert at_first.attributes["gen_ai.usage.completion_tokens"] == 6
    assert at_first.attributes["gen_ai.response.finish_reasons"] == ["abort"]
    assert at_second.attributes["gen_ai.usage.completion_tokens"] == 24
    assert sorted(span.name for span in spans) == [
        *("POST /v1/chat/completions", "admission", "chat sim", "chat sim"),
        *("llm_request", "llm_request", "settle"),
    ]


def test_a_client_that_is_not_sampled_has_no_span_of_an_engine(one: Traced) -> None:
    before = len(one.collector.spans)
    headers = {"authorization": f"Bearer {one.key}", "traceparent": f"00-{new_trace()}-{CLIENT}-00"}
    url = f"{one.gateway.base_url}/chat/completions"
    assert httpx.post(url, json=chat(max_tokens=2), headers=headers, timeout=30).status_code == 200
    trace = new_trace()
    one.post(trace, max_tokens=1)
    one.collector.trace(trace, spans=5)
    assert len(one.collector.spans) == before + 5


def test_the_end_of_an_engine_sends_what_waits() -> None:
    with Collector() as collector, start_sim(rate=200, model="sim", traces_endpoint=collector.url) as sim:
        trace = new_trace()
        headers = {"traceparent": f"00-{trace}-{CLIENT}-01"}
        body = chat(max_tokens=1)
        assert httpx.post(f"{sim.url}/v1/chat/completions", json=body, headers=headers).status_code == 200
        sim.stop()
        assert [(span.trace, span.parent) for span in collector.spans] == [(trace, CLIENT)]
