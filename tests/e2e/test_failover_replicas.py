"""Twenty greedy answers of two real engines at once, all of them cut: token for token what they would have been."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.bench.cpu import children
from tests.chaos.test_ray_replicas import replica_pids
from tests.support.inference import Inference, start_vllm
from tests.support.stack import create_key, start_gateway
from tests.support.tcp_proxy import TcpProxy

from .conftest import MODEL
from .leaving import until

pytestmark = pytest.mark.timeout(900)

TOKENS = 48
QUESTIONS = [
    f"{verb} {subject}."
    for verb in ("Tell me about", "Write a line of a poem about")
    for subject in ("the sea", "a fox", "snow", "bread", "Paris", "chess", "an owl", "gold", "rain", "the moon")
]


@pytest.fixture
def two_engines() -> Iterator[Inference]:
    with start_vllm({"id": MODEL, "replicas": 2}) as inference:
        yield inference


@dataclass
class Said:
    """`ids`: where the request shows them."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish: str | None = None
    usage: dict[str, int] | None = None


class Answers:
    """Of all questions at once; every second one shows its token ids."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client
        self.said = [Said() for _ in QUESTIONS]
        self.chunks = [0] * len(QUESTIONS)

    async def all(self) -> list[Said]:
        await asyncio.gather(*map(self._one, range(len(QUESTIONS))))
        return self.said

    async def until_each_has(self, chunks: int) -> None:
        async with asyncio.timeout(120):
            while min(self.chunks) < chunks:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _one(self, number: int) -> None:
        said = self.said[number]
        stream: Any = await self._client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTIONS[number]}],
            temperature=0,
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"min_tokens": TOKENS, "return_token_ids": number % 2 == 1},
        )
        async for chunk in stream:
            self.chunks[number] += 1
            for choice in chunk.choices:
                said.text += choice.delta.content or ""
                said.ids += getattr(choice, "token_ids", None) or []
                said.finish = choice.finish_reason or said.finish
            if chunk.usage:
                said.usage = chunk.usage.model_dump(include={"prompt_tokens", "completion_tokens"})


async def test_the_connections_and_then_a_replica(two_engines: Inference) -> None:
    base_url = two_engines.base_urls[MODEL]
    async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key=two_engines.api_key, max_retries=0) as direct:
        undisturbed = await Answers(direct).all()
    assert {(said.usage or {})["completion_tokens"] for said in undisturbed} == {TOKENS}
    with TcpProxy(base_url) as proxy:
        upstream = proxy.url + urlsplit(base_url).path
        model = {"id": MODEL, "upstreams": [upstream], "api_key": two_engines.api_key, "max_model_len": 2048}
        with start_gateway({"models": [model], "timeouts": {"heartbeat_s": 1.0}}) as gateway:
            key = create_key(gateway)
            async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as through:
                answers = Answers(through)
                running = asyncio.create_task(answers.all())
                await answers.until_each_has(2)
                proxy.cut()
                await answers.until_each_has(12)
                victims = [pid for pid in replica_pids(two_engines) if _is_engine(pid)]
                assert len(victims) == 2
                os.kill(await _busier(victims), signal.SIGKILL)
                assert await running == undisturbed
            until(lambda: len(gateway.requests) == len(QUESTIONS))
            cuts = sorted(len(entry["failovers"]) for entry in gateway.requests)
            assert cuts[0] >= 1, "all had a connection to lose"
            assert cuts.count(2) >= 4, "the replica that died had some of them"


async def _busier(pids: list[int]) -> int:
    """Of engines the one that computes more: all streams may have come to one of them."""
    before = {pid: _cpu_ticks(pid) for pid in pids}
    await asyncio.sleep(0.3)
    return max(pids, key=lambda pid: _cpu_ticks(pid) - before[pid])


def _cpu_ticks(pid: int) -> int:
    """With all its children."""
    fields = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in (pid, *children(pid))]
    return sum(int(of[11]) + int(of[12]) for of in fields)


def _is_engine(pid: int) -> bool:
    return b":LLMServer:" in Path(f"/proc/{pid}/cmdline").read_bytes()
