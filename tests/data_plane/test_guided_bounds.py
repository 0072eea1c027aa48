"""What would keep an engine's grammar compiler busy is refused before an engine sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.data_plane.conftest import PATIENT, Stack, chat
from tests.support.stack import create_key, served_by, start_gateway, start_sim
from tests.support.wire import INVALID, error_of

ENUM = {"type": "object", "properties": {"a": {"type": "string", "enum": [f"{n:0100}" for n in range(20_000)]}}}
"""That which blocked guided decoding for all."""
LENGTHS = {"type": "object", "properties": {f"p{n}": {"type": "string", "maxLength": n} for n in range(1_000, 1_020)}}
"""A kilobyte that took a compiler half a minute."""
SMALL = {"type": "object", "properties": {"a": {"enum": ["yes", "no"]}}, "required": ["a"]}


def tool(parameters: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "look", "parameters": parameters}}]


def formatted(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with (
        start_sim(rate=200, model="sim", max_model_len=200_000) as sim,
        start_gateway({"models": [served_by(sim)], "timeouts": PATIENT}) as gateway,
    ):
        yield Stack(sim, gateway, create_key(gateway))


@pytest.fixture(scope="module")
def strict(stack: Stack) -> Iterator[Stack]:
    config = {"models": [served_by(stack.sim)], "timeouts": PATIENT, "guided": {"values": 2, "tools": 1}}
    with start_gateway(config) as gateway:
        yield Stack(stack.sim, gateway, create_key(gateway))


def asked_of_the_engine(stack: Stack) -> int:
    stats = stack.sim.stats()
    return int(stats["requests_total"] + stats["refused_total"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("response_format.json_schema", formatted(ENUM)),
        ("response_format.json_schema", formatted(LENGTHS)),
        ("structured_outputs.json", {"structured_outputs": {"json": ENUM}}),
        ("structured_outputs.json", {"structured_outputs": {"json": json.dumps(LENGTHS)}}),
        ("structured_outputs.choice", {"structured_outputs": {"choice": ["x"] * 2_000}}),
        ("structured_outputs.regex", {"structured_outputs": {"regex": "." * 2_000}}),
        ("structured_outputs.grammar", {"structured_outputs": {"grammar": "root ::= " + "[a-z] " * 2_000}}),
        ("tools[0].function.parameters", {"tools": tool(LENGTHS), "tool_choice": "required"}),
        ("tools", {"tools": tool(ENUM)}),
        ("tools", {"tools": tool(SMALL) * 300}),
    ],
)
def test_what_exceeds_a_bound(stack: Stack, path: str, fields: dict[str, Any], stream: bool) -> None:
    before = asked_of_the_engine(stack)
    answer = stack.post(json=chat(stream=stream, **fields))
    assert f"'{path}'" in error_of(answer, 400, INVALID, "invalid_value", path)
    if "tools" not in fields:
        answer = stack.post("/v1/completions", json={"model": "sim", "prompt": "Hi", "stream": stream, **fields})
        error_of(answer, 400, INVALID, "invalid_value", path)
    assert asked_of_the_engine(stack) == before


def test_what_agents_ask_for(stack: Stack) -> None:
    properties = {f"p{n}": {"type": "string", "description": "What it is for. " * 5} for n in range(8)}
    tools = tool({"type": "object", "properties": properties}) * 100
    assert stack.post(json=chat(tools=tools, max_tokens=2)).status_code == 200
    for fields in (formatted(SMALL), {"tools": tool(SMALL), "tool_choice": "required"}):
        answer = stack.post(json=chat(**fields))
        assert answer.status_code == 200, answer.text


def test_bounds_are_settings(strict: Stack) -> None:
    assert strict.post(json=chat(**formatted(SMALL))).status_code == 200
    three = {"enum": ["yes", "no", "perhaps"]}
    message = error_of(
        strict.post(json=chat(**formatted(three))), 400, INVALID, "invalid_value", "response_format.json_schema"
    )
    assert "3 choices or enum values" in message
    assert "at most 2" in message
    error_of(strict.post(json=chat(tools=tool(SMALL) * 2)), 400, INVALID, "invalid_value", "tools")
