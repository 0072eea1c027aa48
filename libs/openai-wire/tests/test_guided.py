"""Which requests a schema, a grammar or a tool guides."""

from __future__ import annotations

from typing import Any

import pytest
from openai_wire.guided import is_guided


def tools(**function: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, **function}}]


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
        {"response_format": {"type": "structural_tag", "structures": []}},
        {"structured_outputs": {"regex": "a+"}},
        {"structured_outputs": {"choice": ["a", "b"]}},
        {"structured_outputs": "of no known form"},
        {"guided_json": {"type": "object"}},
        {"guided_regex": "a+"},
        {"guided_choice": ["a"]},
        {"guided_grammar": "root ::= 'a'"},
        {"guided_json_object": True},
        {"tools": tools(), "tool_choice": "required"},
        {"tools": tools(), "tool_choice": {"type": "function", "function": {"name": "look"}}},
        {"tools": tools(), "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
        {"tools": tools(strict=True)},
        {"tools": tools(strict=True), "tool_choice": "auto"},
        {"tools": [*tools(), *tools(strict=True)]},
    ],
)
def test_guided(body: dict[str, Any]) -> None:
    assert is_guided(body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": None, "structured_outputs": None, "guided_json": None},
        {"response_format": {"type": "text"}},
        {"response_format": "of no known form"},
        {"guided_json_object": False},
        {"tools": tools()},
        {"tools": tools(strict=False), "tool_choice": "auto"},
        {"tools": tools(strict=True), "tool_choice": "none"},
        {"tools": [], "tool_choice": "required"},
        {"tools": None, "tool_choice": "required"},
        {"tools": [5, {"function": 5}, {}]},
        {"tool_choice": "required"},
    ],
)
def test_not_guided(body: dict[str, Any]) -> None:
    assert not is_guided(body)
