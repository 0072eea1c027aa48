"""Two real engines with a LoRA adapter, started by the serve config that the controller makes of a Model.

Twenty greedy answers at once, half of them the adapter's, all of them cut: token for token what they would have been.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from cloudach_inference.local.processes import descendants

from tests.support.inference import Inference, base_weights
from tests.support.lora import make_adapter
from tests.support.stack import create_key, start_gateway
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until

from .conftest import MODEL
from .served import Served, model, served

pytestmark = pytest.mark.timeout(900)

TOKENS = 48
ADAPTER = f"{MODEL}:tale"
QUESTIONS = [
    f"{verb} {subject}."
    for verb in ("Tell me about", "Write a line of a poem about")
    for subject in ("the sea", "a fox", "snow", "bread", "Paris", "chess", "an owl", "gold", "rain", "the moon")
]


@pytest.fixture(scope="module")
def two_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = make_adapter(tmp_path_factory.mktemp("adapter"), base_weights())
    lora = {"adapters": [{"name": "tale", "source": {"image": {"path": str(folder)}}}]}
    with served(model(MODEL, replicas=2, maxModelLen=2048, lora=lora, routing="prefixAware")) as engines:
        yield engines


@dataclass
class Said:
    """`ids`: where the request shows them."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish: str | None = None
    usage: dict[str, int] | None = None


class Answers:
    """Of all questions at once, by the model and the adapter in turn by twos; every second one shows its token ids."""

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
            model=ADAPTER if number % 4 >= 2 else MODEL,
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


def whole(engines: Served | Inference, name: str, question: str) -> str:
    """An answer in one piece, from the engines themselves."""
    url = engines.endpoint if isinstance(engines, Served) else engines.base_urls[MODEL]
    messages: Any = [{"role": "user", "content": question}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key=engines.api_key, max_retries=0) as client:
        answer = client.chat.completions.create(model=name, messages=messages, temperature=0, max_tokens=TOKENS)
    assert answer.model == name
    return answer.choices[0].message.content or ""


def test_the_adapter_says_something_else_and_the_model_what_it_says_without(
    two_engines: Served, vllm: Inference
) -> None:
    for question in QUESTIONS[:4]:
        alone = whole(vllm, MODEL, question)
        assert whole(two_engines, MODEL, question) == alone
        adapted = {whole(two_engines, ADAPTER, question) for _ in range(2)}
        assert len(adapted) == 1, "the replicas differ"
        assert adapted != {alone}


@pytest.fixture
def client(two_engines: Served) -> Iterator[openai.OpenAI]:
    """Of the engines themselves."""
    with openai.OpenAI(base_url=f"{two_engines.endpoint}/v1", api_key=two_engines.api_key, max_retries=0) as sdk:
        yield sdk


def test_the_engines_list_it(two_engines: Served, client: openai.OpenAI) -> None:
    base, adapter = [card.model_dump() for card in client.models.list()]
    assert (base["id"], adapter["id"], adapter["parent"]) == (MODEL, ADAPTER, MODEL)
    with pytest.raises(openai.NotFoundError):
        whole(two_engines, f"{MODEL}:other", "Hi")


def test_requests_with_the_same_beginning_come_to_the_same_replica(two_engines: Served, client: openai.OpenAI) -> None:
    visits = []
    for visitor in range(6):
        told = f"Visitor {visitor} has a long story. " * 20
        for turn in range(3):
            before = two_engines.requests_by_replica()
            client.completions.create(model=MODEL, prompt=told + "And then? " * turn, max_tokens=1)
            after = two_engines.requests_by_replica()
            visits.append((visitor, [old != new for old, new in zip(before, after, strict=True)].index(True)))
    assert len(set(visits)) == 6, "each visitor one replica"
    assert {replica for _, replica in visits} == {0, 1}


async def test_the_connections_and_then_a_replica(two_engines: Served, vllm: Inference) -> None:
    base_url = two_engines.endpoint
    async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key=two_engines.api_key, max_retries=0) as direct:
        undisturbed = await Answers(direct).all()
    assert {(said.usage or {})["completion_tokens"] for said in undisturbed} == {TOKENS}
    for number in (0, 5, 8):  # side by side with the adapter's, and yet the model's own
        assert undisturbed[number].text.startswith(whole(vllm, MODEL, QUESTIONS[number]))
    with TcpProxy(base_url) as proxy:
        behind = {"upstreams": [proxy.url], "api_key": two_engines.api_key, "adapters": [{"name": "tale"}]}
        config = {"models": [{"id": MODEL, **behind}], "timeouts": {"heartbeat_s": 1.0}}
        with start_gateway(config) as gateway:
            key = create_key(gateway)
            async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as through:
                answers = Answers(through)
                running = asyncio.create_task(answers.all())
                await answers.until_each_has(2)
                proxy.cut()
                await answers.until_each_has(12)
                victims = [replica["pid"] for replica in two_engines.replicas()]
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
    fields = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in (pid, *descendants(pid))]
    return sum(int(of[11]) + int(of[12]) for of in fields)
