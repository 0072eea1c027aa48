"""What one request has used so far, from the engine's own token ids or its usage figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .transcript import Transcript


@dataclass(slots=True)
class Tally:
    """Token counts of one request. `usage` is the engine's final statement once it came; it then overrides the counts
    that were collected on the way."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    usage: dict[str, Any] | None = None
    by_chunk: bool = False  # an engine without token ids: a chunk with text counts as one token until it says more
    chunks: int = 0
    transcript: Transcript = field(default_factory=Transcript)
    _stated: int | None = None

    @property
    def completion_tokens(self) -> int:
        return self.chunks + self.transcript.count if self._stated is None else self._stated

    def so_far(self) -> tuple[int, int, int]:
        """Prompt, completion and cached tokens."""
        return self.prompt_tokens, self.completion_tokens, self.cached_tokens

    def take_usage(self, usage: dict[str, Any], *, final: bool) -> None:
        self.prompt_tokens = _count(usage, "prompt_tokens", self.prompt_tokens)
        self._stated = _count(usage, "completion_tokens", self.completion_tokens)
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.cached_tokens = _count(details, "cached_tokens", self.cached_tokens)
        if final:
            self.usage = usage

    def forget_answer(self) -> None:
        """What was generated counts for nothing: nobody got it, and it is generated again."""
        self.chunks, self._stated, self.usage = 0, None, None
        if not self.by_chunk:  # its prompt will be told again, too
            self.prompt_tokens = 0
        self.transcript = Transcript()

    def statement(self) -> dict[str, Any]:
        """`usage` as the client gets it: the engine's own, else what was counted."""
        return self.usage or {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def _count(usage: dict[str, Any], name: str, default: int) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else default
