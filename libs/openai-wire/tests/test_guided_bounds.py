from __future__ import annotations

import json
from typing import Any

import pytest
from openai_wire.guided_bounds import GuidedBounds, check_guided
from openai_wire.repetition import places
from openai_wire.requests import BadField

BOUNDS = GuidedBounds()


def refused(body: dict[str, Any], bounds: GuidedBounds = BOUNDS) -> str | None:
    """The field that is refused."""
    found: BadField | None = None
    try:
        check_guided(body, bounds)
    except BadField as bad:
        found = bad
    assert found is None or f"'{found.param}'" in found.message
    return found and found.param


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def objects(properties: int, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(properties)}, **more}


def strings(number: int, **constraint: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": {"type": "string", **constraint} for n in range(number)}}


def lengths(*most: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": {"type": "string", "maxLength": n} for n in most}}


BAD = {
    "large": {"description": "x" * 70_000},
    "enum": {"enum": [f"value {n}" for n in range(1_001)]},
    "enums": {"anyOf": [{"enum": list(range(600))}, {"enum": list(range(600))}]},
    "deep": nested(100),
    "wide": objects(301),
    "many": {"anyOf": [objects(290) for _ in range(11)]},
    "alternatives": {"anyOf": [{}] * 3_001},
    "lengths": lengths(*range(200, 209)),
    "least": {"allOf": [{"type": "string", "minLength": n} for n in range(1_000, 1_009)]},
    "pattern": {"type": "string", "pattern": "^[a-z]{1,100}" * 11 + "$"},
    "equal patterns": strings(60, pattern="^.{100}$"),
    "equal names": {"anyOf": [{"patternProperties": {"^.{100}$": {}}}] * 60},
    "formats": {"anyOf": [strings(290, format="uri-template")]},
    "names": {"patternProperties": {"." * 1_025: {}}},
}
GOOD = {
    "plain": objects(20, required=["p0"]),
    "enum": {"enum": [f"value {n}" for n in range(1_000)]},
    "deep": nested(30),
    "wide": objects(300),
    "lengths": {"anyOf": [lengths(10, 20, 50, 255, 500, 1_000, 2_000)] * 20},
    "pattern": {"type": "string", "pattern": r"^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,100}\.[A-Za-z]{2,24}$"},
    "identifiers": strings(100, pattern="^[0-9a-f]{24}$"),
    "formats": {
        **strings(200, format="email"),
        "anyOf": [strings(100, format="uri"), strings(290, format="date-time")],
    },
    "named as keywords": {"type": "object", "properties": {"enum": {}, "pattern": {}, "maxLength": {}, "anyOf": {}}},
    "flags": {"type": "string", "maxLength": True, "minLength": None},
}


def carriers(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every field that takes a schema."""
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    return {
        "response_format.json_schema": {
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        },
        "response_format": {
            "response_format": {
                "type": "structural_tag",
                "structures": [{"begin": "<x>", "schema": schema, "end": "</x>"}],
                "triggers": ["<"],
            }
        },
        "structured_outputs.json": {"structured_outputs": {"json": schema}},
        "structured_outputs.structural_tag": {"structured_outputs": {"structural_tag": json.dumps({"format": schema})}},
        "structural_tag": {"structural_tag": {"format": schema}},
        "guided_json": {"guided_json": json.dumps(schema)},
        "tools[0].function.parameters": {"tools": [tool], "tool_choice": "required"},
        "functions[0].parameters": {
            "functions": [{"name": "look", "parameters": schema}],
            "tools": [{"type": "function", "function": {"name": "look", "strict": True}}],
        },
    }


@pytest.mark.parametrize("path", carriers({}))
def test_schemas_wherever_they_stand(path: str) -> None:
    assert {name: refused(carriers(schema)[path]) for name, schema in BAD.items()} == dict.fromkeys(BAD, path)
    assert {name: refused(carriers(schema)[path]) for name, schema in GOOD.items()} == dict.fromkeys(GOOD)


def test_the_attack_that_blocked_guided_decoding() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [f"{n:0100}" for n in range(20_000)]}}}
    for path, body in carriers(schema).items():
        assert (refused(body) or "").split("[")[0] == path.split("[")[0]


@pytest.mark.parametrize("prefix", ["structured_outputs.", "guided_"])
@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("choice", ["x"] * 1_001, ["x"] * 1_000),
        ("choice", ["x" * 700] * 100, ["yes", "no"]),
        ("regex", "[a-z]{1,100}" * 11, r"\d{3}-\d{4}"),
        ("regex", "." * 1_025, "(yes|no){1,500}"),
        ("regex", "a" * 70_000, "a" * 1_000),
        ("regex", "([a-z]{1,100}){1,100}", "([a-z]{1,9}){1,100}"),
        ("grammar", "root ::= " + "[a-z] " * 1_025, 'root ::= "a" [a-z]* | "' + "[a-z]" * 2_000 + '"'),
        ("whitespace_pattern", "[ \\n]{1,100}" * 11, "[ ]?"),
    ],
)
def test_constraints_that_are_no_schemas(prefix: str, name: str, bad: Any, good: Any) -> None:
    def body(value: Any) -> dict[str, Any]:
        return {f"guided_{name}": value} if prefix == "guided_" else {"structured_outputs": {name: value}}

    assert refused(body(bad)) == prefix + name
    assert refused(body(good)) is None


def tools(number: int, **parameters: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": f"t{n}", "parameters": parameters}} for n in range(number)]


def test_what_an_agent_sends() -> None:
    properties = {f"p{n}": {"type": "string", "description": "What it is for. " * 10} for n in range(8)}
    for choice in ("auto", "required", None):
        assert refused({"tools": tools(128, type="object", properties=properties), "tool_choice": choice}) is None


def test_tools_are_bounded_also_where_they_guide_nothing() -> None:
    assert refused({"tools": tools(257)}) == "tools"
    assert refused({"tools": tools(30, description="x" * 10_000)}) == "tools"
    assert refused({"tools": tools(1, **nested(100))}) == "tools[0].function.parameters"
    assert refused({"tools": tools(2, **objects(301))}) is None
    assert refused({"tools": tools(2, **objects(301)), "tool_choice": "required"}) == "tools[0].function.parameters"


def test_all_of_a_request_counts_together() -> None:
    values = {"enum": list(range(400))}
    assert refused({"tools": tools(2, **values), "tool_choice": "required"}) is None
    assert refused({"tools": tools(3, **values), "tool_choice": "required"}) == "tools[2].function.parameters"
    both = {"structured_outputs": {"json": values}, "guided_choice": ["x"] * 700}
    assert refused(both) == "guided_choice"


def test_bodies_of_any_shape_are_looked_at() -> None:
    odd = [None, 5, "x", [], {}, [5], ["x"], [[]], {"x": 5}, True, 1e400, {"function": 5}, [{"function": []}]]
    names = ["structured_outputs", "response_format", "tools", "functions", "structural_tag", "guided_json"]
    names += ["guided_choice", "guided_regex", "guided_grammar"]
    for name in names:
        for value in odd:
            check_guided({name: value}, BOUNDS)
            check_guided({name: value, "tool_choice": "required"}, BOUNDS)
    for name in ("json", "choice", "regex", "grammar", "structural_tag"):
        for value in odd:
            check_guided({"structured_outputs": {name: value}}, BOUNDS)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("yes|no", 0),
        ("[a-z]{1,100}", 100),
        ("[a-z]{5}", 5),
        ("[a-z]{5,}", 5),
        (".*", 1),
        (".{1,5000}", 128),
        (r"\d{4}-\d\d", 6),
        (r"\.{5}", 0),
        ("(a[bc]){3}(d.e){2}", 5),
        ("([a-z]{1,30}){1,30}", 900),
        ("[^]]{3}[]a]", 4),
        ("[a-z]{99999999999999999999}", 128),
        ("(" * 5_000, 0),
        (")" * 5_000 + "{3}", 0),
        ("[", 1),
        ("[" * 50_000, 1),
        ('"' * 50_001, 0),
        ("a" * 50_000 + "[b]{3}", 3),
        ("\\", 0),
    ],
)
def test_places_of_a_pattern(text: str, number: int) -> None:
    assert places(text) == number


def test_strings_of_a_grammar_are_no_patterns() -> None:
    assert places('root ::= "[a-z]{50}" [0-9]{3}', grammar=True) == 3
    assert places('"[a-z]{50}"') == 50
