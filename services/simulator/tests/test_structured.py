"""What a schema or a regular expression forces out of the simulator."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from cloudach_simulator.errors import Refusal
from cloudach_simulator.regex import least_text
from cloudach_simulator.schema import instance

from .conftest import StartSim

CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def test_references_among_parts() -> None:
    schema = {
        "$defs": {"City": CITY, "a/b": {"type": "array", "items": {"$ref": "#/$defs/City"}, "minItems": 2}},
        "type": "object",
        "properties": {"home": {"$ref": "#/$defs/City"}, "others": {"$ref": "#/$defs/a~1b"}},
        "required": ["home", "others"],
    }
    assert instance(schema) == {"home": {"name": "word"}, "others": [{"name": "word"}, {"name": "word"}]}


def test_a_tree_ends_where_it_may() -> None:
    """As pydantic writes a type that holds itself."""
    node = {
        "type": "object",
        "properties": {
            "value": {"type": "integer"},
            "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
        },
        "required": ["value", "next", "children"],
    }
    assert instance({"$defs": {"Node": node}, "$ref": "#/$defs/Node"}) == {"value": 1, "next": None, "children": []}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"$ref": "#/$defs/missing"},
        {"$ref": 7},
        {"type": "string", "minLength": 10**12},
        {"type": "string", "minLength": "many"},
        {"type": "integer", "minimum": "none"},
        {"type": "object", "properties": ["a"]},
        {"anyOf": 1},
        {"type": "array", "minItems": 10**12},
        {"type": "array", "minItems": 10**5, "items": {"type": "array", "minItems": 10**5}},
        {"type": "array", "minItems": 10**5, "items": {"type": "string", "minLength": 10**5}},
        {"type": "array", "minItems": 10**5, "items": {"const": "x" * 100}},
        {"type": "object", "properties": {f"p{n}": {"type": "string", "minLength": 10**5} for n in range(50)}},
    ],
)
async def test_a_hostile_schema_is_refused_and_the_simulator_goes_on(start_sim: StartSim, schema: Any) -> None:
    sim = await start_sim()
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert (await sim.chat(response_format=form)).status_code == 400
    assert (await sim.chat(tools=[tool], tool_choice="required")).status_code == 400
    auto = await sim.chat(tools=[tool])
    assert auto.status_code == 200, "tools that may be called decide nothing before the answer"
    assert (await sim.chat(max_tokens=2)).status_code == 200


async def test_refusals_are_vllms(start_sim: StartSim) -> None:
    sim = await start_sim()

    async def said(**fields: Any) -> str:
        answer = await sim.chat(**fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["param"], error["code"]) == (400, "BadRequestError", None, 400)
        message: str = error["message"]
        return message

    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/B"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert await said(response_format=form) == "Grammar error: Pointer '/$defs/B' does not exist"
    assert (await said(structured_outputs={"regex": "(["})).startswith("Grammar error: invalid regex")
    both = {"regex": "a", "choice": ["b"]}
    assert (await said(structured_outputs=both)).startswith("You can only use one kind of constraints")


def test_a_reference_to_elsewhere_decides_nothing() -> None:
    assert instance({"$ref": "http://127.0.0.1:1/schema"}) == "word"


def test_a_schema_that_doubles_is_bounded() -> None:
    parts = {f"p{n}": {"type": "array", "minItems": 2, "items": [{"$ref": f"#/$defs/p{n + 1}"}]} for n in range(40)}
    parts |= {
        f"q{n}": {"type": "object", "properties": {side: {"$ref": f"#/$defs/q{n + 1}"} for side in "ab"}}
        for n in range(40)
    }
    parts["q40"] = {"type": "string"}
    with pytest.raises(Refusal, match="too complex"):
        instance({"$defs": parts, "$ref": "#/$defs/q0"})


@pytest.mark.parametrize(
    "pattern",
    [
        r"[0-9]{3}-[a-c]+",
        r"(yes|no|maybe)",
        r"\d\w\s\D\W\S",
        r"[^a-z]",
        r"^a.b?c*$",
        r"(?:ab){3}",
        r"(?P<x>a|b)+?",
        r"[^\w\s]{2}",
        r"é{2}[À-ÿ]",
        r"",
    ],
)
def test_a_regular_expression_gets_a_text_that_it_matches(pattern: str) -> None:
    assert re.fullmatch(pattern, least_text(pattern)) is not None


@pytest.mark.parametrize("pattern", ["([", "(?=a)b", r"(a)\1", "a{1000000000}", "((a{1000}){1000}){1000}", "[^\\s\\S]"])
async def test_what_no_engine_can_hold_to_is_refused(start_sim: StartSim, pattern: str) -> None:
    sim = await start_sim()
    assert (await sim.chat(structured_outputs={"regex": pattern})).status_code == 400
    assert (await sim.chat(structured_outputs={"regex": 7})).status_code == 400
    assert (await sim.chat(max_tokens=2)).status_code == 200


async def test_a_regex_and_a_schema_decide_the_answer(start_sim: StartSim) -> None:
    sim = await start_sim()
    answer = await sim.chat(structured_outputs={"regex": "[0-9]{3}-x"})
    assert answer.json()["choices"][0]["message"]["content"] == "000-x"
    text = await sim.http.post("/v1/completions", json={"prompt": "x", "structured_outputs": {"regex": "ab+c"}})
    assert text.json()["choices"][0]["text"] == "abc"
    schema = {"$defs": {"City": CITY}, "$ref": "#/$defs/City"}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await sim.chat(response_format=form)
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == {"name": "word"}
