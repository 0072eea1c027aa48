"""A whole answer from another engine, as the broken stream's own payloads: pure."""

from __future__ import annotations

from typing import Any

import orjson

from ..engine.chunk import has_text, parse
from ..stream.form import PROMPT_IDS, head_bytes, head_in, with_head
from .sent import Seen


class Restarted:
    """The same request once more, of whose first answer nothing had come but roles."""

    ended = False

    def __init__(self, seen: Seen) -> None:
        self._head = seen.head
        self._prefix_out = head_bytes(seen.head)
        self._prefix_in = b""
        self._roles = set(seen.roles)
        self._prompts = set(seen.prompts)

    def adapt(self, payload: bytes) -> bytes | None:
        if not self._head:
            return payload
        if self._prefix_in and payload.startswith(self._prefix_in) and PROMPT_IDS not in payload:
            return self._prefix_out + payload[len(self._prefix_in) :]
        chunk = parse(payload)
        choices = chunk["choices"]
        if choices:
            if all(self._is_known_role(choice) for choice in choices):
                return None
            for choice in choices:
                if choice.get("index", 0) in self._prompts and choice.get("prompt_token_ids") is not None:
                    choice["prompt_token_ids"] = None
            if not any("role" in (choice.get("delta") or {}) for choice in choices):
                self._prefix_in = head_in(payload)
        return orjson.dumps(with_head(chunk, self._head))

    def _is_known_role(self, choice: dict[str, Any]) -> bool:
        delta = choice.get("delta") or {}
        if "role" not in delta or has_text(choice) or choice.get("token_ids") or choice.get("finish_reason"):
            return False
        return choice.get("index", 0) in self._roles
