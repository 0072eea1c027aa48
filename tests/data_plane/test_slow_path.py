"""A stream whose chunks have to be parsed reads as it should, and /metrics counts it with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.data_plane.conftest import PATIENT
from tests.support.ports import free_port
from tests.support.raw_engine import RawEngine
from tests.support.stack import Gateway, create_key, start_gateway
from tests.support.waiting import until
from tests.support.wire import events

USAGE = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


@dataclass
class Counted:
    engine: RawEngine
    gateway: Gateway
    key: str
    metrics_url: str

    def ask(self, *, model: str = "m", **fields: Any) -> str:
        """Returns the answer's text, however it came."""
        done = len(self.gateway.requests)
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
        headers = {"authorization": f"Bearer {self.key}"}
        answer = httpx.post(f"{self.gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        until(lambda: len(self.gateway.requests) > done)  # what is counted is counted by then
        if not fields.get("stream"):
            return answer.json()["choices"][0]["message"]["content"] or ""
        told = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        first = [choice for chunk in told for choice in chunk["choices"] if choice["index"] == 0]
        return "".join(choice["delta"].get("content") or "" for choice in first)

    def slow(self) -> dict[tuple[str, str], float]:
        return {
            (sample.labels["model"], sample.labels["reason"]): sample.value
            for family in text_string_to_metric_families(httpx.get(self.metrics_url).text)
            for sample in family.samples
            if sample.name == "cloudach_slow_path_streams_total"
        }

    def more_than(self, before: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
        return {name: more for name, value in self.slow().items() if (more := value - before.get(name, 0))}


@pytest.fixture(scope="module")
def counted() -> Iterator[Counted]:
    port = free_port()
    with (
        RawEngine() as engine,
        start_gateway(
            {
                "models": [
                    {"id": "m", "upstreams": [engine.url], "max_model_len": 4096},
                    {"id": "other", "upstreams": [engine.url], "dialect": "openai"},
                ],
                "listen": {"metrics_port": port},
                "timeouts": PATIENT,
            }
        ) as gateway,
    ):
        yield Counted(engine, gateway, create_key(gateway), f"http://127.0.0.1:{port}/metrics")


def chunk(choice: dict[str, Any], **more: Any) -> str:
    return json.dumps(HEAD | {"choices": [choice]} | more, separators=(",", ":"))


def running(text: str, number: int, **more: Any) -> dict[str, Any]:
    """A choice as vLLM writes it."""
    return (
        {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
        | more
        | {"token_ids": [number]}
    )


def stream(*chunks: str) -> bytes:
    """A whole stream with these chunks in its middle."""
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    end = running("", 9, finish_reason="stop", stop_reason=None)
    usage = json.dumps(HEAD | {"choices": [], "usage": USAGE}, separators=(",", ":"))
    return events(chunk(role, prompt_token_ids=[1, 2, 3]), *chunks, chunk(end), usage, "[DONE]")


def reordered(text: str, number: int) -> str:
    choice = running(text, number)
    return chunk({name: choice[name] for name in ("index", "finish_reason", "delta", "logprobs", "token_ids")})


def other_head(text: str, number: int) -> str:
    """The model comes before the id."""
    head = {name: HEAD[name] for name in ("model", "id", "object", "created")}
    return json.dumps(head | {"choices": [running(text, number)]}, separators=(",", ":"))


SAID = (("It", 1), (" is", 2))


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("fields", "chunks", "reason"),
    [
        ({}, [chunk(running(*said)) for said in SAID], None),
        ({}, [reordered(*said) for said in SAID], "unknown_form"),
        ({}, [chunk(running("It", 1)), reordered(" is", 2)], "unknown_form"),
        ({}, [json.dumps(json.loads(chunk(running(*said)))) for said in SAID], "unknown_form"),  # with spaces
        ({"logprobs": True}, [chunk(running(*said, logprobs={"content": []})) for said in SAID], "logprobs"),
        ({"n": 2}, [chunk(running(*said) | {"index": index}) for said in SAID for index in (0, 1)], "several_choices"),
        ({}, [chunk(running("", 0, delta={"reasoning": "Hm"})), *(chunk(running(*s)) for s in SAID)], "reasoning"),
        ({}, [chunk(running(*said), usage=USAGE) for said in SAID], "usage"),
        ({"model": "other"}, [chunk(running(*said) | {"token_ids": None}) for said in SAID], "no_token_ids"),
    ],
)  # fmt: skip
def test_why_a_stream_is_parsed(
    counted: Counted, streamed: bool, fields: dict[str, Any], chunks: list[str], reason: str | None
) -> None:
    counted.engine.says(stream(*chunks))
    before = counted.slow()
    assert counted.ask(stream=streamed, **fields) == "It is"
    assert counted.more_than(before) == ({} if reason is None else {(fields.get("model", "m"), reason): 1})


def test_a_head_in_another_order_is_no_known_form(counted: Counted) -> None:
    counted.engine.says(stream(*(other_head(*said) for said in SAID)))
    before = counted.slow()
    assert counted.ask(stream=True) == "It is"
    assert counted.more_than(before) == {("m", "unknown_form"): 1}


def test_a_stream_counts_once_for_each_reason(counted: Counted) -> None:
    thought = chunk(running("", 0, delta={"reasoning": "Hm"}))
    counted.engine.says(stream(thought, *(reordered(*said) for said in SAID), thought))
    before = counted.slow()
    assert counted.ask(stream=True) == "It is"
    assert counted.more_than(before) == {("m", "unknown_form"): 1, ("m", "reasoning"): 1}


def test_token_ids_for_the_client_are_a_reason_only_where_the_answer_is_gathered(counted: Counted) -> None:
    counted.engine.says(stream(*(chunk(running(*said)) for said in SAID)))
    before = counted.slow()
    for streamed in (True, False):
        assert counted.ask(stream=streamed, return_token_ids=True) == "It is"
    assert counted.more_than(before) == {("m", "token_ids"): 1}
