"""Requests and engines' answers broken at random: the gateway says so in its own words, whatever it is, and lives on.

The seeds are fixed: a case that fails can be run alone, by its number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.data_plane import request_cases
from tests.data_plane.engine_cases import MAX_TOKENS, Case, case
from tests.support.raw_engine import RawEngine
from tests.support.stack import Gateway, create_key, start_gateway, start_sim

ANSWERS = 1500
REQUESTS = 3000
AT_ONCE = 16
MOST_GROWTH = 24 * 1024 * 1024  # bytes, after a first third that fills caches and arenas
STATUSES = {200, 400, 413, 502, 503, 504}


def resident(gateway: Gateway) -> int:
    """Bytes of memory that its process holds."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def no_fault_of_ours(gateway: Gateway) -> None:
    for sign in ("Traceback", '"unhandled', "Redis refuses", "never retrieved", "Fatal error", "Exception in callback"):
        assert sign not in gateway.output, gateway.output[max(0, gateway.output.index(sign) - 3000) :][:6000]


def error_in(body: bytes) -> dict[str, Any]:
    answer = json.loads(body)
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["code"] != "internal_error"
    found: dict[str, Any] = answer["error"]
    return found


def ends_well(stream: bytes) -> bool:
    """Whether it ended with [DONE]; otherwise with an error frame. It is one of both, at the end, and once."""
    assert stream.endswith(b"\n\n"), stream[-300:]
    *frames, last = [frame for frame in stream.split(b"\n\n") if frame]
    for frame in frames:
        assert frame != b"data: [DONE]"
        assert not frame.startswith(b'data: {"error"'), frame
    if last == b"data: [DONE]":
        return True
    error_in(last.removeprefix(b"data: "))
    return False


class Broken:
    """The engine that plays the cases: a request names its own in `user`."""

    def __init__(self) -> None:
        self.attempts: dict[int, int] = {}
        self.cases = {number: case(number) for number in range(ANSWERS)}

    def __call__(self, request: bytes) -> bytes:
        named = re.search(rb"case-(\d+)", request)
        if named is None:  # a continuation that does not carry `user`
            return b""
        number = int(named[1])
        attempt = self.attempts[number] = self.attempts.get(number, -1) + 1
        answers = self.cases[number].answers
        return answers[min(attempt, len(answers) - 1)]


@pytest.fixture(scope="module")
def engine() -> Iterator[RawEngine]:
    with RawEngine() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(engine: RawEngine) -> Iterator[Gateway]:
    with start_gateway(
        {
            "models": [
                {"id": "vllm", "upstreams": [engine.url], "max_model_len": 4096},
                {"id": "openai", "upstreams": [engine.url], "dialect": "openai"},
            ],
            "timeouts": {"first_token_s": 20.0, "between_tokens_s": 20.0, "total_s": 25.0, "retries": 1},
            "failover": {"attempts": 2, "budget_s": 0.3, "spread_s": 0.002},
            "limits": {"default_max_tokens": 64},
        }
    ) as running:
        yield running


def test_whatever_an_engine_answers(gateway: Gateway, engine: RawEngine) -> None:
    plays = Broken()
    engine.says(plays)
    headers = {"authorization": f"Bearer {create_key(gateway)}"}
    seen: dict[str, int] = {}
    memory: list[int] = []

    with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as client:

        def ask(number: int) -> None:
            asked: Case = plays.cases[number]
            try:
                answer = client.post(asked.path, json=asked.request)
                how = told(asked, answer)
            except (AssertionError, httpx.HTTPError, KeyError, TypeError, ValueError) as problem:
                raise AssertionError(f"case {number}: {asked}: {problem!r}") from problem
            seen[how] = seen.get(how, 0) + 1

        with ThreadPoolExecutor(AT_ONCE) as threads:
            for part in parts(range(ANSWERS), 3):
                list(threads.map(ask, part))
                memory.append(resident(gateway))

    no_fault_of_ours(gateway)
    assert all(seen.get(how, 0) > ANSWERS / 300 for how in ("[DONE]", "error frame", "whole", "502", "400")), seen
    assert max(memory[1:]) - memory[0] < MOST_GROWTH, memory
    for entry in gateway.requests:
        assert entry["completion_tokens"] <= 2 * MAX_TOKENS, entry
        assert entry["prompt_tokens"] <= 40_000, entry


def told(asked: Case, answer: httpx.Response) -> str:
    """How it went, once that has been found to be one of the ways that there are."""
    assert answer.status_code in STATUSES, answer.text
    if answer.status_code != 200:
        error_in(answer.content)
        return str(answer.status_code)
    if asked.request.get("stream"):
        assert answer.headers["content-type"] == "text/event-stream"
        return "[DONE]" if ends_well(answer.content) else "error frame"
    whole = answer.json()
    assert whole["data" if asked.path == "/v1/embeddings" else "choices"]
    return "whole"


MODELS = ("vllm", "openai", "vectors")


@pytest.fixture(scope="module")
def before_a_simulator() -> Iterator[Gateway]:
    with start_sim(rate=0, model=["vllm", "openai"], embedding_model="vectors", max_model_len=256) as sim:
        models: list[dict[str, Any]] = [
            {"id": "vllm", "upstreams": [sim.url], "max_model_len": 256},
            {"id": "openai", "upstreams": [sim.url], "dialect": "openai"},
            {"id": "vectors", "upstreams": [sim.url]},
        ]
        with start_gateway({"models": models, "timeouts": {"retries": 0}, "failover": {"budget_s": 0.3}}) as running:
            yield running


def test_whatever_a_client_asks(before_a_simulator: Gateway) -> None:
    gateway = before_a_simulator
    headers = {"authorization": f"Bearer {create_key(gateway)}"}
    seen: dict[int, int] = {}
    memory: list[int] = []

    with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as client:

        def ask(number: int) -> None:
            asked = request_cases.case(number, MODELS)
            try:
                named = {name: value.encode("latin-1") for name, value in asked.headers.items()}
                answer = client.post(asked.path, content=asked.body, headers=named)
                assert answer.status_code in {200, 400, 404, 413, 415, 503}, answer.text
                assert answer.headers["x-request-id"]
                if answer.status_code != 200:
                    error_in(answer.content)
                elif answer.headers["content-type"] == "text/event-stream":
                    ends_well(answer.content)
                else:
                    assert answer.json()["data" if asked.path == "/v1/embeddings" else "choices"]
            except (AssertionError, httpx.HTTPError, KeyError, TypeError, ValueError) as problem:
                raise AssertionError(f"case {number}: {asked}: {problem!r}") from problem
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1

        with ThreadPoolExecutor(AT_ONCE) as threads:
            for part in parts(range(REQUESTS), 3):
                list(threads.map(ask, part))
                memory.append(resident(gateway))

    no_fault_of_ours(gateway)
    assert seen[200] > REQUESTS / 20, seen
    assert seen[400] > REQUESTS / 20, seen
    assert max(memory[1:]) - memory[0] < MOST_GROWTH, memory


def parts(numbers: Iterable[int], count: int) -> Iterator[list[int]]:
    listed = list(numbers)
    cuts = [len(listed) * part // count for part in range(count + 1)]
    yield from (listed[begin:end] for begin, end in pairwise(cuts))
