"""One trace a request: what a receiver of OTLP gets of it, and that no receiver can hold a request up."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from tests.data_plane.conftest import PATIENT, chat
from tests.support.collector import Collector, Received
from tests.support.ports import free_port
from tests.support.raw_engine import RawEngine
from tests.support.stack import Gateway, Simulator, complaints, create_key, served_by, start_gateway, start_sim
from tests.support.waiting import until
from tests.support.wire import events, response

TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRETS = ("zanzibar-prompt", "kilimanjaro-user", "ngorongoro-state", "serengeti-baggage")


@dataclass
class Traced:
    sims: list[Simulator]
    gateway: Gateway
    collector: Collector
    key: str

    def post(self, body: dict[str, Any], headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        sent = {"authorization": f"Bearer {self.key}", **(headers or {})}
        return httpx.post(f"{self.gateway.base_url}/chat/completions", json=body, headers=sent, timeout=30, **more)

    def logged(self, request_id: str) -> dict[str, Any]:
        until(lambda: any(entry["request_id"] == request_id for entry in self.gateway.requests), "its log line")
        return next(entry for entry in self.gateway.requests if entry["request_id"] == request_id)


@contextmanager
def traced(
    *,
    sims: int = 1,
    protocol: str = "http/protobuf",
    mode: str = "takes",
    traces: dict[str, Any] | None = None,
    env: dict[str, str | None] | None = None,
    **config: Any,
) -> Iterator[Traced]:
    with ExitStack() as stack:
        collector = stack.enter_context(Collector(protocol, mode))
        engines = [stack.enter_context(start_sim(rate=200, model="sim")) for _ in range(sims)]
        telemetry = {"traces": {"endpoint": collector.url, "protocol": protocol, **(traces or {})}}
        own = {} if env else {"telemetry": telemetry}
        variables = {name: value and value.replace("COLLECTOR", collector.url) for name, value in (env or {}).items()}
        gateway = stack.enter_context(
            start_gateway({"models": [served_by(*engines)], "timeouts": PATIENT, **own, **config}, variables or None)
        )
        yield Traced(engines, gateway, collector, create_key(gateway))


@pytest.fixture(scope="module")
def one() -> Iterator[Traced]:
    with traced(sims=2) as found:
        yield found


def named(spans: list[Received], name: str) -> Received:
    (found,) = [span for span in spans if span.name == name]
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_one_request_is_one_tree_below_its_clients_span(one: Traced, stream: bool) -> None:
    trace = f"{random.getrandbits(128):032x}"
    answer = one.post(
        chat(max_tokens=5, stream=stream), {"traceparent": f"00-{trace}-{CLIENT}-01", "tracestate": SECRETS[2]}
    )
    assert answer.status_code == 200
    spans = one.collector.trace(trace, spans=4)
    request, attempt = named(spans, "POST /v1/chat/completions"), named(spans, "chat sim")
    admission, settle = named(spans, "admission"), named(spans, "settle")
    assert (request.kind, request.parent, request.service) == ("SERVER", CLIENT, "cloudach-gateway")
    assert (attempt.kind, admission.kind, settle.kind) == ("CLIENT", "INTERNAL", "INTERNAL")
    assert {span.parent for span in (attempt, admission, settle)} == {request.span}
    assert not any(span.failed for span in spans)
    entry = one.logged(answer.headers["x-request-id"])
    assert (entry["trace_id"], entry["span_id"]) == (trace, request.span)
    told = request.attributes
    assert told["cloudach.request_id"] == answer.headers["x-request-id"]
    assert (told["http.request.method"], told["http.route"], told["http.response.status_code"]) == (
        "POST",
        "/v1/chat/completions",
        200,
    )
    assert (told["cloudach.tenant"], told["gen_ai.request.model"], told["cloudach.outcome"]) == (
        "tests",
        "sim",
        "finished",
    )
    assert told["gen_ai.request.stream"] is stream
    told = attempt.attributes
    assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"], told["gen_ai.request.model"]) == (
        "chat",
        "vllm",
        "sim",
    )
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (entry["prompt_tokens"], 5)
    assert told["gen_ai.response.finish_reasons"] == ["length"]
    assert f"http://{told['server.address']}:{told['server.port']}" in [sim.url for sim in one.sims]
    assert [span for span in spans if "gen_ai.usage.input_tokens" in span.attributes] == [attempt], (
        "or sums count twice"
    )
    assert request.start_ns <= admission.start_ns <= admission.end_ns <= attempt.start_ns <= attempt.end_ns
    assert attempt.end_ns <= request.end_ns
    assert 0 < told["gen_ai.response.time_to_first_chunk"] <= (attempt.end_ns - attempt.start_ns) / 1e9
    assert 0 < admission.attributes["cloudach.redis.round_trip"] <= (admission.end_ns - admission.start_ns) / 1e9
    assert abs(request.start_ns / 1e9 - time.time()) < 60


def test_an_engine_gets_its_attempts_span_and_nothing_of_a_strangers(one: Traced) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CLIENT}-01", "tracestate": "a=b", "baggage": "secret=1"}
    answer = one.post(chat(max_tokens=2), headers)
    attempt = named(one.collector.trace(TRACE, spans=4), "chat sim")
    seen = next(
        request for sim in one.sims for request in sim.requests() if request["id"] == answer.headers["x-request-id"]
    )
    assert seen["trace"] == {"traceparent": f"00-{TRACE}-{attempt.span}-01"}


def test_a_failed_over_stream_is_one_trace(one: Traced) -> None:
    trace = f"{random.getrandbits(128):032x}"
    for sim in one.sims:
        sim.reset()
    # Whichever engine is asked first breaks; the other one is told not to before it is asked.
    one.sims[0].arm("end@6", times=None)
    for _ in range(20):
        answer = one.post(chat(max_tokens=30, stream=True), {"traceparent": f"00-{trace}-{CLIENT}-01"})
        entry = one.logged(answer.headers["x-request-id"])
        if entry.get("failovers"):
            break
        trace = f"{random.getrandbits(128):032x}"
    one.sims[0].reset()
    assert answer.text.endswith("data: [DONE]\n\n")
    found = one.collector.trace(trace, spans=5 + len([1 for wait in ("turn",) if _has(one, trace, wait)]))
    request = named(found, "POST /v1/chat/completions")
    first, second = sorted((span for span in found if span.name == "chat sim"), key=lambda span: span.start_ns)
    assert {first.parent, second.parent} == {request.span}
    assert (first.failed, second.failed, request.failed) == (True, False, False)
    assert first.attributes["cloudach.attempt.end"] == first.attributes["error.type"] == "lost"
    assert [first.attributes["cloudach.attempt.number"], second.attributes["cloudach.attempt.number"]] == [1, 2]
    ((name, told),) = request.events
    assert name == "cloudach.failover"
    assert told["cloudach.failover.after_tokens"] == entry["failovers"][0]["after_tokens"]
    assert "gen_ai.usage.output_tokens" not in first.attributes
    assert second.attributes["gen_ai.usage.output_tokens"] == 30


def _has(one: Traced, trace: str, name: str) -> bool:
    until(lambda: any(span.trace == trace for span in one.collector.spans), "the trace")
    return any(span.trace == trace and span.name == name for span in one.collector.spans)


@pytest.mark.parametrize(
    "header",
    ["", "00-0-0-0", f"00-{'0' * 32}-{CLIENT}-01", "x" * 8000, f"00-{TRACE}-{CLIENT}-01, 00-{TRACE}-{CLIENT}-01"],
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(one: Traced, header: str) -> None:
    answer = one.post(chat(max_tokens=1), {"traceparent": header})
    assert answer.status_code == 200
    entry = one.logged(answer.headers["x-request-id"])
    spans = one.collector.trace(entry["trace_id"], spans=4)
    assert named(spans, "POST /v1/chat/completions").parent == ""


def test_refusals_are_traced_too(one: Traced) -> None:
    bad_key = httpx.post(
        f"{one.gateway.base_url}/chat/completions", json=chat(), headers={"authorization": "Bearer sk-cld-nobody"}
    )
    unknown = httpx.get(f"{one.gateway.url}/v1/{SECRETS[0]}")
    for answer, name in ((bad_key, "POST /v1/chat/completions"), (unknown, "GET")):
        entry = one.logged(answer.headers["x-request-id"])
        (span,) = one.collector.trace(entry["trace_id"], spans=1)
        assert (span.name, span.attributes["http.response.status_code"]) == (name, answer.status_code)
        assert span.attributes["error.type"]
        assert not span.failed, "by HTTP's conventions a 4xx is no error of a server"
    assert SECRETS[0].encode() not in b"".join(one.collector.bytes)


def test_health_checks_are_not_traced(one: Traced) -> None:
    before = len(one.collector.spans)
    for path in ("/health", "/healthz", "/readyz"):
        assert httpx.get(one.gateway.url + path).status_code == 200
    answer = one.post(chat(max_tokens=1))
    one.collector.trace(one.logged(answer.headers["x-request-id"])["trace_id"], spans=4)
    assert len(one.collector.spans) == before + 4


def test_nothing_of_a_request_gets_into_a_span(one: Traced) -> None:
    body = chat(SECRETS[0], max_tokens=4, user=SECRETS[1], stop=[SECRETS[0]], metadata={"a": SECRETS[1]})
    answer = one.post(body, {"baggage": SECRETS[3], "tracestate": f"k={SECRETS[2]}", "user-agent": SECRETS[1]})
    refused = one.post(chat(SECRETS[0], model=SECRETS[0]))
    assert (answer.status_code, refused.status_code) == (200, 404)
    for request, spans in ((answer, 4), (refused, 1)):
        one.collector.trace(one.logged(request.headers["x-request-id"])["trace_id"], spans=spans)
    said = b"".join(one.collector.bytes)
    for secret in (*SECRETS, one.key, answer.json()["choices"][0]["message"]["content"]):
        assert secret.encode() not in said


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_opentelemetrys_variables_are_enough(protocol: str) -> None:
    env: dict[str, str | None] = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "COLLECTOR",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_SERVICE_NAME": "edge",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with traced(protocol=protocol, env=env) as found:
        answer = found.post(chat(max_tokens=1))
        spans = found.collector.trace(found.logged(answer.headers["x-request-id"])["trace_id"], spans=4)
        assert {span.service for span in spans} == {"edge"}


def test_a_trace_that_is_not_sampled_is_kept_only_for_its_trouble() -> None:
    with traced(sims=1, traces={"ratio": 0.0}) as found:
        good = found.post(chat(max_tokens=1))
        found.sims[0].arm("http:500", times=None)
        bad = found.post(chat(max_tokens=1))
        found.sims[0].reset()
        asked = found.post(chat(max_tokens=1), {"traceparent": f"00-{TRACE}-{CLIENT}-01"})
        assert (good.status_code, asked.status_code) == (200, 200)
        assert bad.status_code >= 500
        found.collector.trace(TRACE, spans=4)
        entry = found.logged(bad.headers["x-request-id"])
        kept = [span for span in found.collector.spans if span.trace == entry["trace_id"]]
        assert named(kept, "POST /v1/chat/completions").attributes["cloudach.kept"] == "error"
        quiet = found.logged(good.headers["x-request-id"])["trace_id"]
        assert not [span for span in found.collector.spans if span.trace == quiet]
        asked_with = [request["trace"]["traceparent"] for request in found.sims[0].requests()]
        assert [header[-3:] for header in asked_with] == ["-01", *["-00"] * (len(asked_with) - 1)], "newest first"


def test_a_client_is_ignored_where_that_is_set() -> None:
    with traced(traces={"join_client": False}) as found:
        answer = found.post(chat(max_tokens=1), {"traceparent": f"00-{TRACE}-{CLIENT}-01"})
        entry = found.logged(answer.headers["x-request-id"])
        assert entry["trace_id"] != TRACE
        assert named(found.collector.trace(entry["trace_id"], spans=4), "POST /v1/chat/completions").parent == ""


def test_streams_that_are_cancelled_at_any_moment_are_each_traced_once() -> None:
    with traced() as found:
        found.sims[0].configure(rate=100)

        async def cancelled(client: openai.AsyncOpenAI, patience_s: float) -> None:
            try:
                async with asyncio.timeout(patience_s):
                    async for _ in await client.chat.completions.create(
                        **chat(max_tokens=400),
                        stream=True,  # type: ignore[arg-type]
                    ):
                        pass
            except (TimeoutError, openai.APIError):
                pass

        async def crowd() -> None:
            chance = random.Random(5)
            for _ in range(10):
                client = openai.AsyncOpenAI(base_url=found.gateway.base_url, api_key=found.key, max_retries=0)
                async with client:
                    await asyncio.gather(*(cancelled(client, chance.uniform(0.0, 1.0)) for _ in range(100)))

        asyncio.run(crowd())
        served = found.post(chat(max_tokens=1))
        found.collector.trace(found.logged(served.headers["x-request-id"])["trace_id"], spans=4)
        spans = found.collector.spans
        assert max(Counter((span.trace, span.span) for span in spans).values()) == 1
        roots = Counter(span.trace for span in spans if span.kind == "SERVER")
        assert roots == Counter(entry["trace_id"] for entry in found.gateway.requests), "each once"
        assert sum(entry.get("outcome") == "cancelled" for entry in found.gateway.requests) > 100
        assert not complaints(found.gateway)
        assert "Failed to detach" not in found.gateway.output


def test_all_processes_export_and_send_the_rest_at_the_end() -> None:
    with traced(listen={"processes": 4}) as found:
        answers = []
        for _ in range(200):  # each on a connection of its own, so that every process gets some
            answers.append(found.post(chat(max_tokens=1)))
            pids = {span.process for span in found.collector.spans}
            if len(pids) == 4:
                break
        last = found.post(chat(max_tokens=1))
        found.gateway.stop()
        traces = {span.trace for span in found.collector.spans if span.kind == "SERVER"}
        assert len({span.process for span in found.collector.spans}) == 4
        assert len(traces) == len(answers) + 1
        assert last.status_code == 200


def counted(metrics_port: int) -> Counter[str]:
    """Returns how many traces and settlements were exported, and dropped for which reason."""
    said = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    found: Counter[str] = Counter()
    for reason, value in re.findall(r'^cloudach_traces_dropped_total\{reason="(\w+)"\} (\S+)$', said, re.M):
        found[reason] = int(float(value))
    for value in re.findall(r"^cloudach_traces_exported_total (\S+)$", said, re.M):
        found["exported"] = int(float(value))
    return found


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("mode", ["hangs", "refuses", "absent"])
def test_no_receiver_holds_a_request_up(mode: str, protocol: str) -> None:
    traces: dict[str, Any] = {"queue": 50}
    if mode == "absent":
        traces["endpoint"] = f"http://127.0.0.1:{free_port()}"
    listen = {"metrics_port": free_port()}
    receiving = "takes" if mode == "absent" else mode
    with traced(mode=receiving, protocol=protocol, traces=traces, listen=listen) as found:
        with httpx.Client(headers={"authorization": f"Bearer {found.key}"}, timeout=30) as client:
            for _ in range(300):
                answer = client.post(f"{found.gateway.base_url}/chat/completions", json=chat(max_tokens=1))
                assert answer.status_code == 200
        # Of 600 traces and settlements 50 wait. Those in a message have at least one span each, and none has gone out.
        counts = counted(listen["metrics_port"])
        assert counts["exported"] == 0
        assert counts["queue_full"] > 0
        began = time.monotonic()
        found.gateway.stop()
        assert time.monotonic() - began < 14, "the end does not wait for a receiver for longer than its bound"
        assert not complaints(found.gateway)
        assert "Traceback" not in found.gateway.output


def test_each_trace_is_exported_or_counted_as_dropped() -> None:
    listen = {"metrics_port": free_port()}
    with traced(mode="refuses", traces={"queue": 50}, listen=listen) as found:
        with httpx.Client(headers={"authorization": f"Bearer {found.key}"}, timeout=30) as client:
            for number in range(200):
                if number == 150:
                    found.collector.mode = "takes"
                answer = client.post(f"{found.gateway.base_url}/chat/completions", json=chat(max_tokens=1))
                assert answer.status_code == 200
        until(lambda: counted(listen["metrics_port"]).total() == 400, "an end for each of 200 requests and settlements")
        spans = found.collector.spans
        taken = sum(span.kind == "SERVER" or span.name == "settle" for span in spans)
        assert taken == counted(listen["metrics_port"])["exported"] > 0


def test_an_engines_own_words_get_into_no_span() -> None:
    with RawEngine() as engine, traced(models=[{"id": "sim", "upstreams": [engine.url]}]) as found:
        for code in (SECRETS[0], "z" * 5000):
            error = {"message": "No.", "type": "BadRequestError", "param": None, "code": code}
            engine.says(response(json.dumps({"error": error}), status=400))
            answer = found.post(chat(max_tokens=1))
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
            spans = found.collector.trace(found.logged(answer.headers["x-request-id"])["trace_id"], spans=4)
            types = {span.attributes.get("error.type") for span in spans}
            assert types == {None, "invalid_request_error", "request_refused"}
            assert not named(spans, "POST /v1/chat/completions").failed, "a 4xx is no error of a server"
        for reason in (SECRETS[1], {SECRETS[1]: 1}, [SECRETS[1]]):
            choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": reason}
            engine.says(events(json.dumps({"id": "1", "choices": [choice]}), "[DONE]"))
            answer = found.post(chat(max_tokens=1, stream=True))
            spans = found.collector.trace(found.logged(answer.headers["x-request-id"])["trace_id"], spans=4)
            assert named(spans, "chat sim").attributes["gen_ai.response.finish_reasons"] == ["other"]
        said = b"".join(found.collector.bytes)
        assert not [secret for secret in SECRETS if secret.encode() in said]
        assert b"zzzz" not in said


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"OTEL_TRACES_SAMPLER": "sometimes"}, "OTEL_TRACES_SAMPLER: 'sometimes'"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, "OTEL_TRACES_SAMPLER_ARG: '2'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: it is no URL"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: 'zipkin'"),
    ],
)
def test_a_bad_variable_is_named_at_the_start(env: dict[str, str | None], said: str) -> None:
    whole = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", **env}
    with pytest.raises(Exception, match=re.escape(said)):
        start_gateway({"models": [{"id": "m", "upstreams": ["http://127.0.0.1:9"]}]}, whole).stop()


@pytest.mark.parametrize("env", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_traces_can_be_switched_off(env: dict[str, str | None]) -> None:
    with traced(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "COLLECTOR", **env}) as found:
        answer = found.post(chat(max_tokens=1), {"traceparent": f"00-{TRACE}-{CLIENT}-01"})
        assert "trace_id" not in found.logged(answer.headers["x-request-id"])
        assert found.sims[0].requests()[0]["trace"] == {}
        found.gateway.stop()
        assert found.collector.calls == 0
