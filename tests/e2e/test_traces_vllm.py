"""One trace from the client through the gateway to the real engine, whose connection breaks in mid-stream."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.collector import Collector, Received
from tests.support.inference import Inference
from tests.support.stack import Gateway, create_key, start_gateway
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until

from .conftest import MODEL

pytestmark = pytest.mark.timeout(900)  # the first test waits for the engine's start

CLIENT = "00f067aa0ba902b7"
LATENCIES = {
    f"gen_ai.latency.{name}"
    for name in (
        *("e2e", "time_in_queue", "time_to_first_token"),
        *(f"time_in_model_{part}" for part in ("prefill", "decode", "inference")),
    )
}


@pytest.fixture(scope="module")
def cuttable(vllm: Inference) -> Iterator[TcpProxy]:
    with TcpProxy(vllm.base_urls[MODEL]) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def gateway(vllm: Inference, collector: Collector, cuttable: TcpProxy) -> Iterator[Gateway]:
    upstream = cuttable.url + urlsplit(vllm.base_urls[MODEL]).path
    config = {
        "models": [{"id": MODEL, "upstreams": [upstream], "api_key": vllm.api_key}],
        "failover": {"budget_s": 300, "attempts": 100},
        "telemetry": {"traces": {"endpoint": collector.url}},
    }
    with start_gateway(config) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    return create_key(gateway)


def ask(gateway: Gateway, key: str, **body: Any) -> tuple[str, httpx.Response]:
    trace = f"{random.getrandbits(128):032x}"
    headers = {"authorization": f"Bearer {key}", "traceparent": f"00-{trace}-{CLIENT}-01"}
    about = [{"role": "user", "content": "Tell me about the planted-zanzibar."}]
    whole = {"model": MODEL, "messages": about, "temperature": 0.5, "min_tokens": 16, **body}
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=whole, headers=headers, timeout=120)
    assert answer.status_code == 200
    return trace, answer


def told(collector: Collector, trace: str, attempts: int) -> tuple[Received, list[tuple[Received, Received]]]:
    """Returns the request's span, and of each attempt its own span and that of the engine below it."""

    def engines() -> list[Received]:
        return [span for span in collector.spans if span.trace == trace and span.name == "llm_request"]

    until(lambda: len(engines()) == attempts, "the engine's spans")
    until(lambda: any(span.trace == trace and span.kind == "CLIENT" for span in collector.spans), "the gateway's spans")
    spans = [span for span in collector.spans if span.trace == trace]
    (request,) = [span for span in spans if span.name == "POST /v1/chat/completions"]
    asked = sorted((span for span in spans if span.name == f"chat {MODEL}"), key=lambda span: span.start_ns)
    assert len(asked) == attempts
    assert {span.parent for span in asked} == {request.span}
    pairs = [(attempt, engine) for attempt in asked for engine in engines() if engine.parent == attempt.span]
    assert [attempt for attempt, _ in pairs] == asked
    return request, pairs


@pytest.mark.parametrize("stream", [True, False])
def test_vllms_span_is_below_the_attempt(
    gateway: Gateway, key: str, collector: Collector, vllm: Inference, stream: bool
) -> None:
    """What stands in it, the simulator's has as well: services/simulator/tests/test_traces.py."""
    trace, answer = ask(gateway, key, max_tokens=20, stream=stream)
    request, ((attempt, engine),) = told(collector, trace, 1)
    assert request.parent == CLIENT
    assert (engine.kind, engine.failed, engine.service) == ("SERVER", False, "cloudach-engine")
    assert attempt.start_ns <= engine.start_ns < attempt.end_ns
    used = (engine.attributes["gen_ai.usage.prompt_tokens"], engine.attributes["gen_ai.usage.completion_tokens"])
    assert used == (attempt.attributes["gen_ai.usage.input_tokens"], attempt.attributes["gen_ai.usage.output_tokens"])
    rest = {name: engine.attributes[name] for name in set(engine.attributes) - LATENCIES}
    assert rest == {
        "gen_ai.request.id": f"chatcmpl-{answer.headers['x-request-id']}",
        "gen_ai.request.n": 1,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": rest["gen_ai.request.top_p"],  # the model's own, unless a request says otherwise
        "gen_ai.usage.prompt_tokens": used[0],
        "gen_ai.usage.completion_tokens": used[1],
    }
    assert set(engine.attributes) >= LATENCIES


def test_a_failed_over_stream_is_one_trace(
    gateway: Gateway, key: str, collector: Collector, cuttable: TcpProxy
) -> None:
    cuttable.cut_after(6)
    trace, answer = ask(gateway, key, max_tokens=40, stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    request, ((first, broken), (second, whole)) = told(collector, trace, 2)
    assert request.parent == CLIENT
    assert (first.failed, second.failed) == (True, False)
    assert broken.attributes["gen_ai.response.finish_reasons"] == ["abort"]
    assert set(broken.attributes) >= LATENCIES
    assert broken.attributes["gen_ai.usage.completion_tokens"] >= 5
    assert "gen_ai.response.finish_reasons" not in whole.attributes
    assert whole.attributes["gen_ai.usage.completion_tokens"] < 40


def test_a_client_that_leaves_has_a_span_of_its_engine(gateway: Gateway, key: str, collector: Collector) -> None:
    trace = f"{random.getrandbits(128):032x}"
    headers = {"authorization": f"Bearer {key}", "traceparent": f"00-{trace}-{CLIENT}-01"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}], "stream": True, "min_tokens": 1000}
    with httpx.stream("POST", f"{gateway.base_url}/chat/completions", json=body, headers=headers) as answer:
        next(answer.iter_lines())
    _, ((_, engine),) = told(collector, trace, 1)
    assert engine.attributes["gen_ai.response.finish_reasons"] == ["abort"]


def test_nothing_of_a_prompt_or_a_key_gets_into_a_span(
    gateway: Gateway, key: str, collector: Collector, vllm: Inference
) -> None:
    trace, answer = ask(gateway, key, max_tokens=16)
    told(collector, trace, 1)
    said = b"".join(collector.bytes)
    for secret in ("planted-zanzibar", key, vllm.api_key, answer.json()["choices"][0]["message"]["content"]):
        assert secret.encode() not in said
