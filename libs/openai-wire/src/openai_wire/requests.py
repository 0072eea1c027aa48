"""Checks once, at the edge, what a generation request looks like. Unknown fields are left to the engine.

A body is parsed once: `read` gives its fields, and `typed` a view of those that the platform itself needs. A bad field
raises `BadField` with its path, as OpenAI names it (`messages[0].content`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
import orjson
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
CountOrZero = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Choices = Annotated[int, Meta(ge=1, le=128)]
Logprobs = Annotated[int, Meta(ge=-1, le=2**31 - 1)]  # the engine decides how many it gives; -1: all
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
# Texts or token ids, one or several. The engine refuses a list that mixes them.
Prompt = str | list[str | CountOrZero | list[CountOrZero]]
Name = Annotated[str, Meta(min_length=1)]


class BadField(ValueError):
    """A field that is missing or has a wrong type or value. `param` is its path, None for the body itself."""

    def __init__(self, message: str, *, param: str | None, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class StreamOptions(Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Message(Struct):
    role: Name
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None


class Generation(Struct, kw_only=True):
    """The fields that chat and completions share."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: Choices | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: str | list[str] | None = None
    seed: Seed | None = None
    user: str | None = None
    logit_bias: dict[str, float] | None = None
    return_token_ids: bool | None = None
    prompt_logprobs: int | None = None

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def answer_limit(self) -> int | None:
        """Returns the most tokens of one answer, as far as the request says."""
        return self.max_tokens

    def prompt_estimate(self) -> int:
        """Returns about how many tokens the prompt has. The engine's own count replaces it afterwards."""
        raise NotImplementedError


class ChatRequest(Generation, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Logprobs | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    documents: Any = None
    reasoning_effort: str | None = None

    @property
    def answer_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def prompt_estimate(self) -> int:
        total = 0
        for message in self.messages:
            total += _TOKENS_PER_MESSAGE
            if isinstance(message.content, str):
                total += _tokens_in(message.content)
            elif message.content:
                total += sum(_tokens_in(part["text"]) for part in message.content if isinstance(part.get("text"), str))
            for said_before in (message.tool_calls, message.reasoning, message.reasoning_content):
                if said_before:
                    total += _tokens_in_json(said_before)
        for said_to_all in (self.tools, self.documents):
            if said_to_all:
                total += _tokens_in_json(said_to_all)
        return total


class CompletionRequest(Generation, kw_only=True):
    prompt: Prompt
    max_tokens: CountOrZero | None = None  # 0 with echo scores a prompt
    logprobs: Logprobs | None = None
    echo: bool | None = None
    best_of: Choices | None = None
    suffix: str | None = None

    @property
    def prompts(self) -> int:
        """Counts the prompts of the request. Each gets `n` answers."""
        if isinstance(self.prompt, list) and self.prompt and not isinstance(self.prompt[0], int):
            return len(self.prompt)
        return 1

    @property
    def choices(self) -> int:
        return (self.n or 1) * self.prompts

    def prompt_estimate(self) -> int:
        return _tokens_in_prompt(self.prompt)


class EmbeddingRequest(Struct, kw_only=True):
    model: Name
    input: Prompt
    messages: None = None  # vLLM would take them in the place of `input`, and their cost is not known here
    encoding_format: str | None = None
    dimensions: Count | None = None
    user: str | None = None

    def prompt_estimate(self) -> int:
        return _tokens_in_prompt(self.input)


# English has about 4 bytes a token, code and other scripts have fewer. A guess that is too high only holds tokens back
# for the length of the request.
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8


def _tokens_in(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 1


def _tokens_in_json(value: Any) -> int:
    return len(msgspec.json.encode(value)) // _BYTES_PER_TOKEN


def _tokens_in_prompt(prompt: str | list[Any]) -> int:
    if isinstance(prompt, str):
        return _tokens_in(prompt)
    return sum(
        1 if isinstance(item, int) else _tokens_in(item) if isinstance(item, str) else len(item) for item in prompt
    )


Request = TypeVar("Request", bound=Struct)

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$", re.S)
_MISSING = re.compile(r"^Object missing required field `(?P<field>.*)`$")


def read(body: bytes) -> dict[str, Any]:
    """Parses a JSON body, and turns whole numbers that are written as `3.0` into integers. `typed` checks the fields.

    Raises BadField with the code `invalid_json` when the body is not JSON.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadField(f"The request body is not valid JSON: {error}.", param=None, code="invalid_json") from None
    _mend(fields)
    return fields  # type: ignore[no-any-return]  # `typed` refuses what is no object


def typed(kind: type[Request], fields: dict[str, Any]) -> Request:
    """Returns the typed view of fields that were read. Raises BadField."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise _bad_field(str(error)) from None


_WHOLE_NUMBERS = (
    "max_tokens",
    "max_completion_tokens",
    "n",
    "best_of",
    "seed",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "dimensions",
)


def _mend(fields: Any) -> None:
    """Corrects whole numbers that are written as `3.0`, because other servers take them."""
    if not isinstance(fields, dict):
        return
    for name in _WHOLE_NUMBERS:
        number = fields.get(name)
        if isinstance(number, float) and number.is_integer():
            fields[name] = int(number)


def drop_empty_tools(fields: dict[str, Any]) -> None:
    """Removes an empty list of tools, and a choice among them. Raises BadField if the choice asks for a tool."""
    if fields.get("tools") != []:
        return
    if fields.get("tool_choice") not in (None, "auto", "none"):
        raise BadField(
            "'tool_choice' asks for a tool, and 'tools' is empty.", param="tool_choice", code="invalid_value"
        )
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        fields.pop(name, None)


def _bad_field(text: str) -> BadField:
    match = _AT.match(text)
    what, path = (match["what"], match["path"] or "") if match else (text, "")
    path = path.replace("[...]", "")  # how msgspec names the values of a mapping
    missing = _MISSING.match(what)
    if missing:
        param = ".".join(filter(None, (path, missing["field"])))
        return BadField(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    if not path:
        return BadField(
            f"The request body must be a JSON object: {what[0].lower()}{what[1:]}.", param=None, code="invalid_type"
        )
    reason = what[0].lower() + what[1:].replace("`", "'")
    code = "invalid_type" if ", got " in what else "invalid_value"
    return BadField(f"Invalid '{path}': {reason}.", param=path, code=code)


__all__ = [
    "BadField",
    "ChatRequest",
    "CompletionRequest",
    "EmbeddingRequest",
    "Generation",
    "Message",
    "StreamOptions",
    "drop_empty_tools",
    "read",
    "typed",
]
