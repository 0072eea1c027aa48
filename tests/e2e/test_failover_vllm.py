"""Greedy answers of the real engine, each cut once in mid-stream: token for token what they would have been."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.support.inference import Inference, replica_pids
from tests.support.stack import Gateway, create_key, start_gateway
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until

from .conftest import MODEL

pytestmark = pytest.mark.timeout(900)  # the first test waits for the engine's start

SUBJECTS = [
    "the sea", "Paris", "a fox", "snow", "the moon", "bread", "a river", "trains", "gold", "rain",
    "mountains", "chess", "coffee", "an owl", "the sun", "violins", "ships", "honey", "deserts",
]  # fmt: skip


@dataclass(frozen=True)
class Said:
    text: str
    ids: tuple[int, ...]
    finish: str | None
    completion_tokens: int


@pytest.fixture(scope="module")
def cuttable(vllm: Inference) -> Iterator[TcpProxy]:
    with TcpProxy(vllm.base_urls[MODEL]) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def gateway(vllm: Inference, cuttable: TcpProxy) -> Iterator[Gateway]:
    upstream = cuttable.url + urlsplit(vllm.base_urls[MODEL]).path
    config = {
        "models": [{"id": MODEL, "upstreams": [upstream], "api_key": vllm.api_key}],
        "failover": {"budget_s": 300, "attempts": 100},  # one replica only: its successor loads the weights first
    }
    with start_gateway(config) as running:
        yield running


@pytest.fixture(scope="module")
def direct(vllm: Inference) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{vllm.base_urls[MODEL]}/v1", api_key=vllm.api_key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def through(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=create_key(gateway), max_retries=0, timeout=400) as client:
        yield client


def ask(
    client: openai.OpenAI, number: int, on_chunk: Callable[[int], None] = lambda _: None, *, tokens: int | None = None
) -> Said:
    """Chats and completions in turn, of at most so many tokens; `on_chunk` gets the number of chunks read."""
    about = f"Tell me about {SUBJECTS[number % len(SUBJECTS)]}."
    asked: dict[str, Any] = {
        "model": MODEL,
        "temperature": 0,
        "max_tokens": tokens or 20 + number,
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_body": {"return_token_ids": True, "min_tokens": 16},
    }
    if number % 2:
        stream: Any = client.completions.create(prompt=about, **asked)
    else:
        stream = client.chat.completions.create(messages=[{"role": "user", "content": about}], **asked)
    texts, ids, finish, used, heads = [], [], None, 0, set()
    for count, chunk in enumerate(stream, 1):
        on_chunk(count)
        heads.add((chunk.id, chunk.created))
        for choice in chunk.choices:
            texts.append((choice.text if number % 2 else choice.delta.content) or "")
            ids += getattr(choice, "token_ids", None) or []
            finish = choice.finish_reason or finish
        if chunk.usage:
            used = chunk.usage.completion_tokens
    assert len(heads) == 1
    return Said("".join(texts), tuple(ids), finish, used)


def logged(gateway: Gateway, request: Callable[[], Said]) -> tuple[Said, dict[str, Any]]:
    """What a request said, and its log entry, which is written after the answer has ended."""
    before = len(gateway.requests)
    said = request()
    until(lambda: len(gateway.requests) > before)
    return said, gateway.requests[before]


@pytest.mark.parametrize("number", range(len(SUBJECTS)))
def test_a_lost_connection(
    direct: openai.OpenAI, through: openai.OpenAI, cuttable: TcpProxy, gateway: Gateway, number: int
) -> None:
    undisturbed = ask(direct, number)
    at = random.randint(1, 14)
    cuttable.cut_after(at)  # not by the client, which may have fallen behind by the rest of the answer
    said, entry = logged(gateway, lambda: ask(through, number))
    assert said == undisturbed, f"cut at chunk {at}"
    assert len(entry["failovers"]) == 1


def test_a_killed_replica(direct: openai.OpenAI, through: openai.OpenAI, vllm: Inference, gateway: Gateway) -> None:
    """The only one there is: the stream waits, with heart-beats, until Ray Serve has started its successor."""
    undisturbed = ask(direct, 20, tokens=96)  # so long that most of it is to come when it is killed
    (replica,) = [pid for pid in replica_pids(vllm) if b"LLMServer" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def kill(count: int) -> None:
        if count == 3:
            os.kill(replica, signal.SIGKILL)

    said, entry = logged(gateway, lambda: ask(through, 20, kill, tokens=96))
    assert said == undisturbed
    assert len(entry["failovers"]) == 1
    assert entry["heartbeats"] >= 1
