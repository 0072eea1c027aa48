"""Turns generated text into tool calls, streamed or whole, as vLLM's `hermes` parser does.

The text of a call is a JSON object with `name` and `arguments` between `<tool_call>` tags. That is so for calls that
the model makes by itself, and for calls that a `required` or named choice forces.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
_NAME = re.compile(r'"name"\s*:\s*"([^"]+)"')
_ARGUMENTS = re.compile(r'"arguments"\s*:\s*')


def call_id() -> str:
    """Returns a tool call's id, which is random as in vLLM."""
    return f"chatcmpl-tool-{secrets.token_hex(8)}"


def _overlap(text: str, tag: str) -> int:
    """Returns how many characters at the end of `text` could be the beginning of `tag`."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class DeltaParser:
    """Turns the text deltas of one choice into message deltas. Without calls it only drops empty deltas."""

    def __init__(self, calls: bool) -> None:
        self.called = False
        self._calls = calls
        self._text = ""
        self._content_sent = 0
        self._named: list[bool] = []
        self._arguments_sent: list[int] = []

    def feed(self, text: str) -> dict[str, Any] | None:
        """Returns the delta for more text; None if there is nothing to send yet."""
        if not self._calls:
            return {"content": text} if text else None
        self._text += text
        start = self._text.find(OPEN)
        sendable = start if start >= 0 else len(self._text) - _overlap(self._text, OPEN)
        content = self._text[self._content_sent : sendable] or None
        self._content_sent = max(self._content_sent, sendable)
        calls: list[dict[str, Any]] = []
        for index, (body, complete) in enumerate(self._bodies()):
            if not self._call(index, body, complete, calls):
                break
        if calls:
            self.called = True
            return {"content": content, "tool_calls": calls}
        return {"content": content} if content else None

    def _bodies(self) -> list[tuple[str, bool]]:
        bodies = []
        for part in self._text.split(OPEN)[1:]:
            body, end, _ = part.partition(CLOSE)
            if not end:
                body = body[: len(body) - _overlap(body, CLOSE)]
            body = body.strip()
            bodies.append((body, bool(end) or _is_json(body)))
        return bodies

    def _call(self, index: int, body: str, complete: bool, out: list[dict[str, Any]]) -> bool:
        if index == len(self._named):
            self._named.append(False)
            self._arguments_sent.append(0)
        if not self._named[index]:
            name = _NAME.search(body)
            if name is None:
                return False
            self._named[index] = True
            out.append({"id": call_id(), "type": "function", "index": index, "function": {"name": name.group(1)}})
        found = _ARGUMENTS.search(body)
        if found is not None:
            arguments = body[found.end() :]
            if complete:
                # The last brace closes the call, not its arguments.
                arguments = arguments.rstrip().removesuffix("}").rstrip()
            new = arguments[self._arguments_sent[index] :]
            if new:
                self._arguments_sent[index] = len(arguments)
                out.append({"index": index, "function": {"arguments": new}})
        return True


def whole(text: str) -> tuple[str | None, list[dict[str, Any]]]:
    """Returns a finished text's content and tool calls. Text that cannot be read as calls is content."""
    start = text.find(OPEN)
    if start < 0:
        return text, []
    try:
        parsed = [json.loads(part.partition(CLOSE)[0]) for part in text.split(OPEN)[1:]]
        calls = [_call(call["name"], json.dumps(call["arguments"], ensure_ascii=False)) for call in parsed]
    except (ValueError, KeyError, TypeError):
        return text, []
    content = text[:start]
    return content if content.strip() else None, calls


def _call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id(), "type": "function", "function": {"name": name, "arguments": arguments}}
