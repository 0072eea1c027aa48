"""A whole answer from another engine, adapted to be the broken stream's: pure."""

from __future__ import annotations

from typing import Any

import orjson

from ..engine.chunk import has_text, parse
from ..stream.form import PROMPT_IDS, head_bytes, head_in, with_head
from .sent import SentAnswer


class Restarted:
    """Adapts the answer to a request that is asked once more, because only roles had come of its first answer."""

    ended = False

    def __init__(self, sent: SentAnswer) -> None:
        self._head = sent.head
        self._head_out = head_bytes(sent.head)
        self._head_in = b""
        self._roles_told = set(sent.roles_told)
        self._prompts_told = set(sent.prompts_told)

    def adapt(self, payload: bytes) -> bytes | None:
        if not self._head:
            return payload
        if self._head_in and payload.startswith(self._head_in) and PROMPT_IDS not in payload:
            return self._head_out + payload[len(self._head_in) :]
        chunk = parse(payload)
        choices = chunk["choices"]
        if choices:
            if all(self._is_known_role(choice) for choice in choices):
                return None
            for choice in choices:
                if choice.get("index", 0) in self._prompts_told and choice.get("prompt_token_ids") is not None:
                    choice["prompt_token_ids"] = None
            if not any("role" in (choice.get("delta") or {}) for choice in choices):
                self._head_in = head_in(payload)
        return orjson.dumps(with_head(chunk, self._head))

    def _is_known_role(self, choice: dict[str, Any]) -> bool:
        delta = choice.get("delta") or {}
        if "role" not in delta or has_text(choice) or choice.get("token_ids") or choice.get("finish_reason"):
            return False
        return choice.get("index", 0) in self._roles_told
