"""Real vLLM compiles the largest schemas that the gateway lets through, and others get their answers meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.support.inference import Inference
from tests.support.stack import Gateway, create_key, start_gateway

from .conftest import MODEL

pytestmark = pytest.mark.timeout(900)  # the first test waits for the engine's start


@pytest.fixture(scope="module")
def gateway(vllm: Inference) -> Iterator[Gateway]:
    model = {"id": MODEL, "upstreams": [vllm.base_urls[MODEL]], "api_key": vllm.api_key}
    with start_gateway({"models": [model]}) as running:
        yield running


@pytest.fixture(scope="module")
def clients(gateway: Gateway) -> Iterator[tuple[openai.OpenAI, openai.OpenAI]]:
    """Of two tenants."""
    keys = [create_key(gateway, tenant=tenant) for tenant in ("hungry", "other")]
    made = [openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0, timeout=300) for key in keys]
    yield made[0], made[1]
    for each in made:
        each.close()


def enum(number: int, length: int) -> dict[str, Any]:
    values = [f"{n:0{length}}" for n in range(number)]
    return {"type": "object", "properties": {"a": {"enum": values}}, "required": ["a"], "additionalProperties": False}


def answered(client: openai.OpenAI, schema: dict[str, Any]) -> str:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages: Any = [{"role": "user", "content": "Choose."}]
    said = client.chat.completions.create(
        model=MODEL, messages=messages, response_format=wanted, max_tokens=40, temperature=0
    )
    return said.choices[0].message.content or ""


def test_the_largest_that_are_let_through(clients: tuple[openai.OpenAI, openai.OpenAI]) -> None:
    hungry, other = clients
    lengths = {f"p{n}": {"type": "string", "maxLength": n} for n in range(200, 208)}
    largest = [enum(1_000, 55), {"type": "object", "properties": lengths, "required": list(lengths)}]
    with ThreadPoolExecutor(len(largest)) as threads:
        running = [threads.submit(answered, hungry, schema) for schema in largest]
        assert answered(other, enum(2, 1)).startswith("{")
        assert all(one.result() for one in running)


def test_what_blocked_guided_decoding_for_all_is_refused(clients: tuple[openai.OpenAI, openai.OpenAI]) -> None:
    hungry, other = clients
    with pytest.raises(openai.BadRequestError) as refused:
        answered(hungry, enum(20_000, 100))
    assert refused.value.param == "response_format.json_schema"
    assert answered(other, enum(3, 1)).startswith("{")
