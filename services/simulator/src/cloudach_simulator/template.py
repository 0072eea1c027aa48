"""The chat template. It turns messages and tools into prompt ids, in the manner of ChatML. Pure."""

from __future__ import annotations

import functools
from typing import Any

import orjson

from .tokenizer import encode
from .vocabulary import END_TOOLS, IM_END, IM_START, TOOLS

_LINE_END = 10


@functools.lru_cache(64)
def _heading(role: str) -> tuple[int, ...]:
    return tuple(encode(f"{role}\n"))


def content_text(content: object) -> str:
    """Returns a message's content as text. Parts that are no text are named, so that they change the answer too."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = []
        for part in content:
            if isinstance(part, dict):
                kind = part.get("type")
                text = part.get("text")
                parts.append(text if isinstance(text, str) else f"<{kind}:{orjson.dumps(part).decode()}>")
            else:
                parts.append(str(part))
        return "\n".join(parts)
    return str(content)


def render(
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> list[int]:
    """Returns the prompt's token ids."""
    ids: list[int] = []
    if tools:
        ids += [TOOLS, *encode(orjson.dumps(tools).decode()), END_TOOLS]
    for position, message in enumerate(messages):
        text = content_text(message.get("content"))
        for call in message.get("tool_calls") or []:
            text += f"<tool_call>{orjson.dumps(call.get('function')).decode()}</tool_call>"
        ids += [IM_START, *_heading(message["role"]), *encode(text)]
        if not (continue_final_message and position == len(messages) - 1):
            ids += [IM_END, _LINE_END]
    if add_generation_prompt and not continue_final_message:
        ids += [IM_START, *_heading("assistant")]
    return ids
