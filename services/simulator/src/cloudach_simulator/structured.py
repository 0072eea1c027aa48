"""Answers that a grammar or a tool decides: JSON for a response format, calls for tools. Pure.

A call that the model makes by itself (`tool_choice: auto`) depends on the token ids alone, so it can go on after a
break. Text that a grammar forces (`required`, a named tool, `response_format`) begins anew with each
request. So it does in a real engine, whose grammar does not know what the prompt holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from .errors import Refusal, bad_request, invalid, schema_error
from .regex import least_text
from .schema import instance
from .tokenizer import decode, encode
from .vocabulary import END_TOOLS, EOS, IM_START, TOOLS


@dataclass(slots=True, frozen=True)
class ToolChoice:
    """`none`, `auto`, `required` or `named`."""

    kind: str
    name: str = ""


def _dump(value: object) -> str:
    return orjson.dumps(value).decode()


def guided_text(body: dict[str, Any]) -> str | None:
    """Returns the text that `response_format` (or `structured_outputs`) forces, if any."""
    form = body.get("response_format")
    if form is not None:
        if not isinstance(form, dict) or form.get("type") not in ("text", "json_object", "json_schema"):
            message = "Input should be 'text', 'json_object' or 'json_schema'"
            raise schema_error("literal_error", "response_format", message, form)
        if form.get("type") == "json_object":
            return '{"answer": "word"}'
        if form.get("type") == "json_schema":
            if form.get("json_schema") is None:
                raise invalid(
                    "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
                    "response_format",
                )
            schema = form["json_schema"]
            if not isinstance(schema, dict):
                raise schema_error("model_type", "response_format", "Input should be a valid dictionary", schema)
            return _dump(instance(schema.get("schema")))
    outputs = body.get("structured_outputs")
    if isinstance(outputs, dict):
        if sum(outputs.get(name) is not None for name in ("json", "regex", "choice")) > 1:
            raise bad_request(
                "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
            )
        if outputs.get("regex") is not None:
            if not isinstance(outputs["regex"], str):
                raise schema_error("string_type", "structured_outputs", "Input should be a valid string", outputs)
            return least_text(outputs["regex"])
        if outputs.get("choice"):
            choice = outputs["choice"]
            if not isinstance(choice, list):
                raise schema_error("list_type", "structured_outputs", "Input should be a valid list", choice)
            return str(choice[0])
        if outputs.get("json") is not None:
            return _dump(instance(_schema(outputs["json"])))
        if outputs.get("json_object"):
            return '{"answer": "word"}'
    return None


def _schema(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        schema: object = orjson.loads(given)
    except orjson.JSONDecodeError as error:
        raise invalid("Invalid JSON schema.", "structured_outputs") from error
    return schema


def tool_choice(body: dict[str, Any]) -> ToolChoice:
    """Returns what the request says about tools. Refusals have vLLM's words."""
    tools = body.get("tools")
    if tools == []:
        raise invalid(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )
    if tools is not None and not isinstance(tools, list):
        raise schema_error("list_type", "tools", "Input should be a valid list", tools)
    for tool in tools or []:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise schema_error("missing", "tools", "Field required", tool)
    choice = body.get("tool_choice", "auto" if tools else "none")
    if choice == "none":
        return ToolChoice("none")
    if choice is None:
        return ToolChoice("auto" if tools else "none")
    if not tools:
        raise invalid("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if choice in ("auto", "required"):
        return ToolChoice(choice)
    usage = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'
    if not isinstance(choice, dict):
        raise invalid(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
        )
    function = choice.get("function")
    if not isinstance(function, dict):
        raise invalid(f"Invalid value for `function`: `{function}` in `tool_choice`! {usage}", "tool_choice.function")
    if "name" not in function:
        raise invalid(f"Expected field `name` in `function` in `tool_choice`! {usage}", "tool_choice.function.name")
    if all(tool.get("function", {}).get("name") != function["name"] for tool in tools):
        raise invalid("The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice")
    return ToolChoice("named", function["name"])


def _arguments(tool: dict[str, Any]) -> Any:
    return instance((tool.get("function") or {}).get("parameters") or {"type": "object"})


def tool_text(tools: list[dict[str, Any]], name: str = "") -> str:
    """Returns the text of a call to the first tool, or to the named one."""
    tool = next(t for t in tools if name in ("", t["function"]["name"]))
    call = f'{{"name": "{tool["function"]["name"]}", "arguments": {_dump(_arguments(tool))}}}'
    return f"<tool_call>\n{call}\n</tool_call>"


def scripted_call(prompt: list[int]) -> tuple[int, ...] | None:
    """Returns the rest of the tool call that answers this prompt, if it has tools and a user spoke last.

    It reads only the ids, so a prompt that ends within the call goes on where it ends.
    """
    if TOOLS not in prompt or END_TOOLS not in prompt:
        return None
    try:
        tools = orjson.loads(decode(prompt[prompt.index(TOOLS) + 1 : prompt.index(END_TOOLS)]))
        call = (*encode(tool_text(tools)), EOS)
    except (orjson.JSONDecodeError, LookupError, TypeError, Refusal):
        return None
    opening = [IM_START, *encode("assistant\n")]
    turns = [i for i, token in enumerate(prompt) if token == IM_START]
    if len(turns) < 2 or prompt[turns[-1] : turns[-1] + len(opening)] != opening:
        return None
    if prompt[turns[-2] + 1 : turns[-2] + 3] != encode("user\n"):
        return None
    begun = prompt[turns[-1] + len(opening) :]
    return call[len(begun) :] if tuple(begun) == call[: len(begun)] and len(begun) < len(call) else None
