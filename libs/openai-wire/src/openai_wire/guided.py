"""Tells guided requests from others: a schema, a grammar or a tool decides which tokens their answers may have.

An engine compiles such a constraint before the first token, and checks every token against it. So one guided request
can cost as much as many plain ones. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Engines before vLLM 0.12 know the members of `structured_outputs` as fields of their own.
_FIELDS = (
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_json_object",
    "structural_tag",
)


def is_guided(body: Mapping[str, Any]) -> bool:
    """Returns True for a guided chat or completion request. Never raises, whatever the fields hold."""
    if any(body.get(name) for name in _FIELDS):
        return True
    form = body.get("response_format")
    if isinstance(form, Mapping) and form.get("type") not in (None, "text"):
        return True
    tools = body.get("tools")
    if not isinstance(tools, list) or not tools:
        return False
    choice = body.get("tool_choice")
    if choice is None or choice == "auto":  # only tools that ask for it constrain the model then
        return any(_is_strict(tool) for tool in tools)
    return bool(choice != "none")


def _is_strict(tool: object) -> bool:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return isinstance(function, Mapping) and function.get("strict") is True
