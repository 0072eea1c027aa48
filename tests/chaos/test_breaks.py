"""Breaks that need some timing, one stream each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.stack import Simulator, create_key, served_by, start_gateway, start_sim

BUDGET_S = 1.0


@pytest.fixture(scope="module")
def sims() -> Iterator[list[Simulator]]:
    with start_sim(rate=20, model="sim") as one, start_sim(rate=20, model="sim") as other:
        yield [one, other]


@pytest.fixture(scope="module")
def client(sims: list[Simulator]) -> Iterator[openai.OpenAI]:
    with start_gateway(
        {"models": [served_by(*sims, max_model_len=32768)], "failover": {"budget_s": BUDGET_S, "spread_s": 0.01}}
    ) as gateway:
        yield openai.OpenAI(base_url=gateway.base_url, api_key=create_key(gateway), max_retries=0)


def answer(client: openai.OpenAI, tokens: int) -> str:
    fields: dict[str, Any] = {"model": "sim", "prompt": "Tell me of the sea 3", "max_tokens": tokens, "temperature": 0}
    stream = client.completions.create(**fields, stream=True, extra_body={"ignore_eos": True})
    return "".join(chunk.choices[0].text for chunk in stream)


def test_the_budget_of_time_is_for_each_break(sims: list[Simulator], client: openai.OpenAI) -> None:
    tokens = round(20 * BUDGET_S * 2)
    undisturbed = answer(client, 2 * tokens)
    for sim in sims:  # the second cut comes later after the first than the budget is long
        sim.arm(f"end@{tokens - 5}")
    assert answer(client, 2 * tokens) == undisturbed
    for sim in sims:
        assert sim.stats()["failed_total"] == 1


def test_an_error_that_comes_with_the_first_events(sims: list[Simulator], client: openai.OpenAI) -> None:
    undisturbed = answer(client, 30)
    for sim in sims:
        sim.reset()
        sim.configure(rate=0)  # all events in one write
    sims[0].arm("error@9")
    sims[1].arm("error@9")
    assert answer(client, 30) == undisturbed
    assert sum(sim.stats()["failed_total"] for sim in sims) == 2
