"""Chats and completions differ in this when a broken answer goes on: pure.

An answer from a path of the engine that has no row here is not continued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..engine import routes

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """The answers of one path. Its functions take the request's parsed body.

    obstacle: why a request cannot be continued, beyond what its fields say one by one.
    answer_limit: the most tokens that the request allows; None where only the model's context limits the answer.
    logprobs: how many of the likeliest tokens the continuation is asked for, if the stream had log probabilities.
    chat: the text comes in messages, and a parser may stand between the tokens and the text.
    """

    path: str
    chat: bool
    obstacle: Callable[[Fields], str | None]
    answer_limit: Callable[[Fields], int | None]
    logprobs: Callable[[Fields], int]


def choices(fields: Fields) -> int:
    """Returns the number of answers that the request asks for."""
    prompt = fields.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return prompts * (fields.get("n") or 1)


def _chat_obstacle(fields: Fields) -> str | None:
    for message in fields.get("messages") or ():
        content = message.get("content")
        if isinstance(content, list) and any(part.get("type") != "text" for part in content):
            return "parts that are no text"
    if fields.get("logprobs") and fields.get("top_logprobs") == -1:
        return "all log probabilities"  # /v1/completions has no word for them
    return None


def _chat_limit(fields: Fields) -> int | None:
    limit = fields.get("max_completion_tokens")
    return fields.get("max_tokens") if limit is None else limit


def _completion_limit(fields: Fields) -> int | None:
    limit = fields.get("max_tokens")
    return 16 if limit is None else limit  # OpenAI's default; vLLM takes null for it too


CHAT = Kind(
    routes.CHAT.path,
    chat=True,
    obstacle=_chat_obstacle,
    answer_limit=_chat_limit,
    logprobs=lambda fields: fields.get("top_logprobs") or 0,
)
COMPLETIONS = Kind(
    routes.COMPLETIONS.path,
    chat=False,
    obstacle=lambda fields: "several prompts" if choices(fields) != 1 else None,
    answer_limit=_completion_limit,
    logprobs=lambda fields: fields["logprobs"],
)
KINDS = {kind.path: kind for kind in (CHAT, COMPLETIONS)}
