"""A stream as it stood on the wire, and what a client can tell of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass
class Streamed:
    """comments: heart-beats. done: whether it ended with [DONE] and nothing after it. error: of an error frame, which
    is the last one then."""

    raw: bytes
    chunks: list[dict[str, Any]] = field(default_factory=list)
    comments: int = 0
    done: bool = False
    error: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        assert self.raw == b"" or self.raw.endswith(b"\n\n"), f"a frame is cut off: {self.raw[-200:]!r}"
        for frame in self.raw.split(b"\n\n")[:-1]:
            assert not self.done, f"after [DONE]: {frame!r}"
            assert self.error is None, f"after the error: {frame!r}"
            if frame == b": keep-alive":
                self.comments += 1
            elif frame == b"data: [DONE]":
                self.done = True
            else:
                chunk = json.loads(frame.removeprefix(b"data: "))
                if "error" in chunk:
                    self.error = chunk["error"]
                else:
                    self.chunks.append(chunk)

    @property
    def text(self) -> str:
        return "".join(_text(choice) for chunk in self.chunks for choice in chunk["choices"])

    @property
    def usage(self) -> dict[str, int] | None:
        """The last one told."""
        told = [chunk["usage"] for chunk in self.chunks if chunk.get("usage")]
        return {name: told[-1][name] for name in COUNTS} if told else None

    @property
    def heads(self) -> set[tuple[Any, ...]]:
        return {tuple(chunk[name] for name in ("id", "object", "created", "model")) for chunk in self.chunks}

    def told(self) -> dict[str, Any]:
        """All that does not hang on which token came with which event, nor on when it was asked."""
        choices = [choice for chunk in self.chunks for choice in chunk["choices"]]
        logprobs = [choice["logprobs"] for choice in choices if choice.get("logprobs")]
        return {
            "heads": len(self.heads),
            "roles": [(c["index"], c["delta"]["role"]) for c in choices if "role" in c.get("delta", {})],
            "texts": {
                index: "".join(_text(c) for c in choices if c["index"] == index)
                for index in {c["index"] for c in choices}
            },
            "ends": [
                (c["index"], c["finish_reason"], c.get("stop_reason"))
                for c in choices
                if c.get("finish_reason") is not None
            ],
            "tokens": [
                entry for told in logprobs for entry in (told.get("content") or zip(*told.values(), strict=True))
            ],
            "ids": [token for c in choices for token in c.get("token_ids") or ()],
            "prompts": [
                holder["prompt_token_ids"] for holder in [*self.chunks, *choices] if holder.get("prompt_token_ids")
            ],
            "usage": self.usage,
            "usage on": [bool(chunk["choices"]) for chunk in self.chunks if chunk.get("usage")][-1:],
            # The engine's fingerprint stands beside its usage: where no engine states that, it is not known.
            "fields": sorted({name for chunk in self.chunks for name in chunk} - {"system_fingerprint"}),
            "done": self.done,
        }


def _text(choice: dict[str, Any]) -> str:
    return choice.get("text") or choice.get("delta", {}).get("content") or ""
