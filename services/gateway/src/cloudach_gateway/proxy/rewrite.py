"""The engine's chunks turned into the client's: pure, one instance a stream.

The gateway asks the engine for more than the client did (token ids, usage) in order to bill exactly; here that is
counted and taken out again. A running chunk in vLLM's own form is edited as bytes: nothing inside a JSON string can
look like the keys searched for, because its quotes are escaped. Every other chunk is parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson
from openai_wire.sse import DONE_FRAME

from .chunk import BadChunk, has_text, parse
from .tally import Tally


class UsageForm(Enum):
    """Where the client wants `usage` in its stream."""

    LAST_CHOICE = "on the last chunk that has a choice"  # no stream_options: the guide's form
    EXTRA_CHUNK = "a last chunk without choices"  # include_usage: true
    EVERY_CHUNK = "on every chunk"  # continuous_usage_stats: true
    NONE = "nowhere"  # include_usage: false


@dataclass(frozen=True, slots=True)
class ClientView:
    """What of the engine's stream the client asked to see."""

    model: str  # the name the client used
    usage: UsageForm = UsageForm.LAST_CHOICE
    token_ids: bool = False
    answers_per_prompt: int = 1


_TOKEN_IDS = b',"token_ids":['
_PROMPT_IDS = b'"prompt_token_ids":['
_NO_PROMPT_IDS = b',"prompt_token_ids":null'
_RUNNING = b'"finish_reason":null'
_CHOICES = b',"choices":['


class StreamRewriter:
    """Feed it the payloads of the engine's events in order; it returns the bytes to send on, possibly none."""

    __slots__ = ("_held", "_prefix_in", "_prefix_out", "_tail", "_view", "choices_seen", "tally")

    def __init__(self, view: ClientView, tally: Tally) -> None:
        self._view = view
        self.tally = tally
        self.choices_seen = False  # whether any chunk with a choice came: the engine has begun to answer
        self._held: dict[str, Any] | None = None  # the finishing chunk, waiting for the usage it may have to carry
        self._prefix_in = b"\x00"  # the head that running chunks share, known after the first
        self._prefix_out = b""
        self._tail = b',"usage":null}' if view.usage is UsageForm.EXTRA_CHUNK else b"}"

    def feed(self, payload: bytes) -> bytes:
        """Raises EngineReportedError, BadChunk."""
        if payload.startswith(self._prefix_in) and self._held is None:
            edited = self._edit_running(payload)
            if edited is not None:
                return edited
        try:
            return self._edit_parsed(payload)
        except (AttributeError, TypeError, ValueError) as error:
            raise BadChunk(f"not of a chunk's shape: {error}") from error

    def finish(self) -> bytes:
        """The end of the client's stream, once the engine sent [DONE]."""
        if self._held is not None and self.tally.completion_tokens:
            self._held["usage"] = self.tally.statement()
        return self._release() + DONE_FRAME

    def _edit_running(self, payload: bytes) -> bytes | None:
        start = payload.rfind(_TOKEN_IDS)
        if start < 0 or _RUNNING not in payload or _PROMPT_IDS in payload or payload.count(b'"finish_reason":') != 1:
            return None
        first = start + len(_TOKEN_IDS)
        end = payload.find(b"]", first)
        if end < 0 or payload[end + 1 :] != b"}]}":
            return None
        if end > first:
            self.tally.completion_tokens += payload.count(b",", first, end) + 1
        skip = len(self._prefix_in)
        if self._view.token_ids:
            return b"data: %b%b%b\n\n" % (self._prefix_out, payload[skip:-1], self._tail)
        if b'"delta":{},' in payload:
            return b""  # sent only because token ids were asked for
        if payload.endswith(_NO_PROMPT_IDS, 0, start):
            start -= len(_NO_PROMPT_IDS)
        return b"data: %b%b}]%b\n\n" % (self._prefix_out, payload[skip:start], self._tail)

    def _edit_parsed(self, payload: bytes) -> bytes:
        chunk = parse(payload)
        if "model" in chunk:
            chunk["model"] = self._view.model
        if chunk.get("prompt_text", "") is None:
            del chunk["prompt_text"]  # vLLM's first chunk always has it
        choices = chunk.get("choices")
        if not choices:
            return self._edit_usage_chunk(chunk)
        self.choices_seen = True
        self._count(chunk, choices)
        self._learn_prefix(payload, chunk)
        if not self._view.token_ids and _is_placeholder(choices):
            return b""
        frames = self._release()
        if any(choice.get("finish_reason") for choice in choices) and self._view.usage is UsageForm.LAST_CHOICE:
            self._held = chunk
            return frames
        if self._view.usage is UsageForm.EXTRA_CHUNK:
            chunk["usage"] = None
        return frames + _frame(chunk)

    def _count(self, chunk: dict[str, Any], choices: list[dict[str, Any]]) -> None:
        """Counts the token ids and takes out what the client did not ask for."""
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.tally.take_usage(usage, final=False)
        if self._view.usage is not UsageForm.EVERY_CHUNK:
            chunk.pop("usage", None)
        keep = self._view.token_ids
        prompt = chunk.get("prompt_token_ids") if keep else chunk.pop("prompt_token_ids", None)
        if isinstance(prompt, list):
            self.tally.prompt_tokens = len(prompt)
        for choice in choices:
            prompt = choice.get("prompt_token_ids") if keep else choice.pop("prompt_token_ids", None)
            if isinstance(prompt, list) and choice.get("index", 0) % self._view.answers_per_prompt == 0:
                self.tally.prompt_tokens += len(prompt)
            ids = choice.get("token_ids") if keep else choice.pop("token_ids", None)
            if usage is None and isinstance(ids, list):
                self.tally.completion_tokens += len(ids)
            elif usage is None and self.tally.by_chunk and has_text(choice):
                self.tally.completion_tokens += 1

    def _learn_prefix(self, payload: bytes, chunk: dict[str, Any]) -> None:
        """Remembers the head of a chunk when it is in the compact form that can be edited as bytes."""
        cut = payload.find(_CHOICES)
        head = [(key, chunk[key]) for key in ("id", "object", "created", "model") if key in chunk]
        if cut < 0 or payload[:cut].count(b'":') != len(head) or self._view.usage is UsageForm.EVERY_CHUNK:
            return
        cut += len(_CHOICES)
        self._prefix_in = payload[:cut]
        self._prefix_out = orjson.dumps(dict(head))[:-1] + _CHOICES

    def _edit_usage_chunk(self, chunk: dict[str, Any]) -> bytes:
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.tally.take_usage(usage, final=True)
        if self._view.usage in (UsageForm.EXTRA_CHUNK, UsageForm.EVERY_CHUNK):
            return self._release() + _frame(chunk)
        return self._release()

    def _release(self) -> bytes:
        held, self._held = self._held, None
        if held is None:
            return b""
        if self.tally.usage is not None:
            held["usage"] = self.tally.usage
        return _frame(held)


def _is_placeholder(choices: list[dict[str, Any]]) -> bool:
    """Whether a chunk says nothing once its token ids are gone."""
    return all(choice.get("delta") == {} and not choice.get("finish_reason") for choice in choices)


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
