"""One x-request-id finds a request's log line, its trace and its usage record, at each endpoint, however it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.collector import Collector, Received
from tests.support.stack import Gateway, Simulator, cloudach, create_key, served_by, start_gateway, start_sim
from tests.support.waiting import until

TEXT = "zanzibar"
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"model": "sim", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 8},
    "completions": {"model": "sim", "prompt": TEXT, "max_tokens": 8},
    "embeddings": {"model": "vectors", "input": TEXT},
}


@dataclass
class Signals:
    """What tells of one request. usage: its records, of which there is one at most without an accident."""

    log: dict[str, Any]
    trace: list[Received]
    usage: list[dict[str, Any]]

    @property
    def request(self) -> Received:
        (found,) = [span for span in self.trace if span.kind == "SERVER"]
        return found


@dataclass
class Running:
    sims: list[Simulator]
    gateway: Gateway
    collector: Collector
    key: str

    def ask(self, route: str, key: str | None = None, **fields: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.post(
            f"{self.gateway.base_url}/{route}", json={**BODIES[route], **fields}, headers=headers, timeout=60
        )

    def found_by(self, request_id: str, *, settled: bool = True) -> Signals:
        """Returns what the id alone finds. A request that was let in is waited for until its usage is written."""

        def trace() -> list[Received]:
            ids = [one.trace for one in self.collector.spans if one.attributes.get("cloudach.request_id") == request_id]
            return [one for one in self.collector.spans if one.trace in ids]

        def logged() -> list[dict[str, Any]]:
            return [entry for entry in self.gateway.requests if entry["request_id"] == request_id]

        last = "settle" if settled else "POST"
        until(lambda: logged() and any(one.name.startswith(last) for one in trace()), f"all of {request_id}")
        (log,) = logged()
        return Signals(log, trace(), self.records(request_id))

    def records(self, request_id: str) -> list[dict[str, Any]]:
        """Returns the usage records of this id. They are written before a trace says `settle`."""
        lines = cloudach(self.gateway, "usage", "records", "--tenant", "tests").splitlines()
        return [record for record in map(json.loads, lines) if record["id"] == request_id]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with (
        Collector() as collector,
        start_sim(rate=300, model="sim", embedding_model="vectors") as one,
        start_sim(rate=300, model="sim", embedding_model="vectors") as other,
        start_gateway(
            {
                "models": [served_by(one, other), {"id": "vectors", "upstreams": [one.url, other.url]}],
                "telemetry": {"traces": {"endpoint": collector.url}},
            }
        ) as gateway,
    ):
        yield Running([one, other], gateway, collector, create_key(gateway))


@pytest.mark.parametrize(
    ("route", "stream"),
    [
        ("chat/completions", False),
        ("chat/completions", True),
        ("completions", False),
        ("completions", True),
        ("embeddings", False),
    ],
)
def test_an_id_finds_all_three(running: Running, route: str, stream: bool) -> None:
    answer = running.ask(route, **({"stream": True} if stream else {}))
    assert answer.status_code == 200, answer.text
    found = running.found_by(answer.headers["x-request-id"])
    assert [span.name for span in found.trace if span.kind == "SERVER"] == [f"POST /v1/{route}"]
    assert (found.log["trace_id"], found.log["span_id"]) == (found.request.trace, found.request.span)
    (record,) = found.usage
    assert (record["route"], record["model"], record["outcome"]) == (
        route,
        BODIES[route]["model"],
        found.log["outcome"],
    )
    attempts = [span for span in found.trace if span.kind == "CLIENT"]
    told = [
        (
            span.attributes["gen_ai.usage.input_tokens"],
            span.attributes["gen_ai.usage.output_tokens"],
        )
        for span in attempts
    ]
    assert told == [(record["prompt_tokens"], record["completion_tokens"])]
    assert (found.log["prompt_tokens"], found.log["completion_tokens"]) == told[0]


def test_an_id_finds_a_request_that_failed_over(running: Running) -> None:
    running.sims[0].arm("end@6", times=None)
    try:
        for _ in range(20):  # until the engine that breaks was asked first
            answer = running.ask("chat/completions", stream=True, max_tokens=20, min_tokens=20)
            assert answer.text.endswith("data: [DONE]\n\n")
            found = running.found_by(answer.headers["x-request-id"])
            if found.log.get("failovers"):
                break
    finally:
        running.sims[0].reset()
    ends = {span.attributes["cloudach.attempt.end"] for span in found.trace if span.kind == "CLIENT"}
    assert ends == {"lost", "completed"}
    assert [name for name, _ in found.request.events] == ["cloudach.failover"]
    (record,) = found.usage
    assert (record["failovers"], record["completion_tokens"], len(found.log["failovers"])) == (1, 20, 1)
    asked = {request["id"] for sim in running.sims for request in sim.requests()}
    assert answer.headers["x-request-id"] in asked, "the engine has the same id"


def test_a_refused_request_has_a_log_line_and_a_trace_and_no_usage(running: Running) -> None:
    limited = create_key(running.gateway, name="limited", requests_per_minute=1)
    served = running.ask("chat/completions", key=limited)
    refused = running.ask("chat/completions", key=limited)
    stranger = running.ask("embeddings", key="sk-cld-nobody")
    assert (served.status_code, refused.status_code, stranger.status_code) == (200, 429, 401)
    for answer, code, spans in (
        (refused, "rate_limit_exceeded", ["POST /v1/chat/completions", "admission"]),
        (stranger, "invalid_api_key", ["POST /v1/embeddings"]),
    ):
        found = running.found_by(answer.headers["x-request-id"], settled=False)
        assert sorted(span.name for span in found.trace) == sorted(spans)
        assert found.request.attributes["error.type"] == found.log["code"] == code
        assert (found.log["status"], found.log["trace_id"]) == (answer.status_code, found.request.trace)
        assert found.usage == []
    assert len(running.found_by(served.headers["x-request-id"]).usage) == 1
