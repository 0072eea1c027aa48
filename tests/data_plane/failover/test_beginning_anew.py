"""Answers that cannot be continued: a stream ends with an error, a whole answer begins anew."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from tests.data_plane.conftest import chat
from tests.data_plane.failover.fleet import CHAT, COMPLETIONS, SPLIT, TOOL, Fleet, asking
from tests.support.waiting import until

IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "seeded sampling": {"seed": 3, "temperature": 1},
    "presence penalty": {"presence_penalty": 0.5},
    "frequency penalty": {"frequency_penalty": 0.5},
    "several choices": {"n": 2},
    "guided decoding": {"response_format": {"type": "json_object"}},
    "tool calls": {"tools": [TOOL], "tool_choice": "required"},
    "field x_unheard_of": {"x_unheard_of": 1},
}


@pytest.mark.parametrize("reason", IMPOSSIBLE)
def test_what_cannot_be_continued(two: Fleet, reason: str) -> None:
    body = chat(SPLIT, max_tokens=40, min_tokens=20, **IMPOSSIBLE[reason])
    at = 19 if reason == "tool calls" else 6  # until its name is known, a call is nothing that was sent
    got = two.broken(f"end@{at}", lambda: two.stream(CHAT, body))
    assert got.error is not None
    assert got.error["code"] == "upstream_error"
    assert reason not in json.dumps(got.error)
    assert got.chunks
    entry = two.logged()
    assert f"not continued: {reason}" in entry["cause"]
    assert (entry["outcome"], entry["code"], two.asked()) == ("failed", "upstream_error", 1)


def test_the_official_sdk_raises_what_cannot_be_continued(two: Fleet) -> None:
    body: dict[str, Any] = chat(SPLIT, max_tokens=40, presence_penalty=0.5, extra_body={"min_tokens": 30})

    def ask() -> str:
        try:
            with two.sdk() as sdk:
                return f"{len(list(sdk.chat.completions.create(**body, stream=True)))} chunks"
        except openai.APIError as error:
            return f"{type(error).__name__} {error.code}"

    assert two.broken("end@19", ask) == "APIError upstream_error"


WHOLE_BREAKS = [(fault, reason) for fault in ("end@4", "abort@4", "error@4:nodone") for reason in IMPOSSIBLE]


@pytest.mark.parametrize(("fault", "reason"), WHOLE_BREAKS)
def test_whole_answers_begin_anew(two: Fleet, reason: str, fault: str) -> None:
    body = chat(SPLIT, max_tokens=60, **IMPOSSIBLE[reason])
    two.reset()
    expected = two.post(CHAT, body).json()
    answer = two.broken(fault, lambda: two.post(CHAT, body))
    assert answer.status_code == 200, answer.text
    got = answer.json()
    if reason == "tool calls":
        calls = [choice["message"].pop("tool_calls") for whole in (got, expected) for choice in whole["choices"]]
        assert [c["function"] for c in calls[0]] == [c["function"] for c in calls[1]]
    assert got["choices"] == expected["choices"]
    assert got["usage"]["completion_tokens"] == expected["usage"]["completion_tokens"]
    assert two.logged(answer.headers["x-request-id"])["completion_tokens"] == expected["usage"]["completion_tokens"]
    assert two.asked() == 2


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_an_answer_that_began_anew_and_was_not_waited_for(two: Fleet, path: str) -> None:
    """The prompt is paid for once, and the answer as far as it came the second time."""
    for sim in two.sims:
        sim.configure(rate=10)  # a tick is longer than it takes until all know that the client has left
    prompt = two.stream(path, asking(path, max_tokens=1)).usage
    assert prompt is not None
    body = asking(path, max_tokens=900, ignore_eos=True, presence_penalty=0.5)

    async def leave() -> None:
        """Once the answer has begun anew, or will not break."""

        def far_enough() -> bool:
            stats = [sim.stats() for sim in two.sims]
            broke = sum(of["failed_total"] for of in stats) == 1
            return sum(of["generated_tokens_total"] for of in stats) >= (20 + 8 if broke else 25)

        async with httpx.AsyncClient(timeout=60) as client:
            headers = {"authorization": f"Bearer {two.key}"}
            asked = asyncio.create_task(client.post(two.gateway.url + path, headers=headers, json=body))
            await asyncio.to_thread(until, far_enough)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            assert asked.cancelled()

    def ask() -> int:
        """The number of its entry in the log."""
        two.logged()
        number = len(two.gateway.requests)
        asyncio.run(leave())
        until(lambda: len(two.gateway.requests) > number)
        return number

    number = two.broken("end@20", ask)
    entry = two.gateway.requests[number]
    assert entry["outcome"] == "cancelled"
    until(lambda: sum(sim.stats()["running"] for sim in two.sims) == 0)
    generated = sum(sim.stats()["generated_tokens_total"] for sim in two.sims)
    for sim in two.sims:
        sim.configure(rate=300)
    assert entry["prompt_tokens"] == prompt["prompt_tokens"]
    assert generated - 20 - 5 <= entry["completion_tokens"] <= generated - 20
