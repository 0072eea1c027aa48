"""Writes chunks and bodies as vLLM does, field for field and in vLLM's order, nulls included.

The parts of a stream's chunks that do not change are made once, so a plain chunk is `head + TAILS[token]`.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from .vocabulary import PIECES, SIMPLE

DONE: Final = b"data: [DONE]\n\n"
FINGERPRINT: Final = "vllm-0.29.0-51c10ac4"
Tails = tuple[bytes, ...]


def text_json(text: str) -> bytes:
    """Returns a JSON string."""
    return orjson.dumps(text)


def _tails(before: bytes, after: bytes, with_ids: bool) -> Tails:
    """For each simple token, the end of a chunk that carries only it. For other tokens, nothing."""
    tails = []
    for token, piece in enumerate(PIECES):
        if not SIMPLE[token]:
            tails.append(b"")
            continue
        text = piece.decode()
        ids = b"[%d]" % token if with_ids else b"null"
        tails.append(before + text_json(text) + after + ids + b"}]}\n\n")
    return tuple(tails)


_CHAT_BEFORE: Final = b'"delta":{"content":'
_CHAT_AFTER: Final = b'},"logprobs":null,"finish_reason":null,"token_ids":'
_TEXT_BEFORE: Final = b'"text":'
_TEXT_AFTER: Final = b',"logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":'
CHAT_TAILS: Final = {ids: _tails(_CHAT_BEFORE, _CHAT_AFTER, ids) for ids in (False, True)}
TEXT_TAILS: Final = {ids: _tails(_TEXT_BEFORE, _TEXT_AFTER, ids) for ids in (False, True)}


class Frame:
    """The constant parts of one stream's chunks."""

    __slots__ = ("chat", "opening")

    def __init__(self, chat: bool, request_id: str, created: int, model: str) -> None:
        self.chat = chat
        kind = b"chat.completion.chunk" if chat else b"text_completion"
        self.opening = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            text_json(request_id),
            kind,
            created,
            text_json(model),
        )

    def head(self, index: int) -> bytes:
        """A plain chunk up to the part that `CHAT_TAILS` and `TEXT_TAILS` hold."""
        return self.opening + b'{"index":%d,' % index

    def chunk(self, choice: dict[str, Any], **rest: Any) -> bytes:
        """Returns a chunk with one choice. rest: the fields after `choices`."""
        end = b"," + orjson.dumps(rest)[1:] if rest else b"}"
        return b"%b%b]%b\n\n" % (self.opening, orjson.dumps(choice), end)

    def usage(self, usage: dict[str, Any]) -> bytes:
        """Returns the last chunk, which has usage and no choice."""
        return self.opening + b"]," + orjson.dumps({"usage": usage, "system_fingerprint": FINGERPRINT})[1:] + b"\n\n"


def usage_fields(prompt: int, completion: int, **details: Any) -> dict[str, Any]:
    """The total stands in the middle, as in vLLM."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion, **details}


NOT_CACHED: Final = {"cached_tokens": 0}


def _usage(prompt: int, completion: int, details: bool) -> dict[str, Any]:
    told = {**NOT_CACHED, "created_cache_tokens": None, "multimodal_tokens": None} if details else None
    return usage_fields(prompt, completion, prompt_tokens_details=told, completion_tokens_details=None)


def chat_choice(
    index: int,
    content: str | None,
    tool_calls: list[dict[str, Any]],
    finish_reason: str | None,
    stop_reason: int | str | None,
    token_ids: list[int] | None,
    logprobs: dict[str, Any] | None,
) -> dict[str, Any]:
    """Returns a whole chat choice."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if tool_calls:
        message["tool_calls"] = tool_calls
    message["reasoning"] = None
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
        "stop_reason": stop_reason,
        "token_ids": token_ids,
        "routed_experts": None,
    }


def chat_body(
    request_id: str,
    created: int,
    model: str,
    choices: list[dict[str, Any]],
    prompt: int,
    completion: int,
    prompt_ids: list[int] | None,
    *,
    prompt_logprobs: list[Any] | None,
    details: bool,
) -> bytes:
    """Returns a whole chat answer. details: usage names the cached tokens."""
    return orjson.dumps(
        {
            "id": request_id,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": _usage(prompt, completion, details),
            "prompt_logprobs": prompt_logprobs,
            "prompt_token_ids": prompt_ids,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )


def text_choice(
    index: int,
    text: str,
    finish_reason: str | None,
    stop_reason: int | str | None,
    token_ids: list[int] | None,
    prompt_ids: list[int] | None,
    logprobs: dict[str, Any] | None,
    prompt_logprobs: list[Any] | None,
) -> dict[str, Any]:
    """Returns a whole completion choice."""
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
        "stop_reason": stop_reason,
        "token_ids": token_ids,
        "prompt_logprobs": prompt_logprobs,
        "prompt_token_ids": prompt_ids,
        "routed_experts": None,
    }


def text_body(
    request_id: str,
    created: int,
    model: str,
    choices: list[dict[str, Any]],
    prompt: int,
    completion: int,
    *,
    details: bool,
) -> bytes:
    """Returns a whole completion answer. details: usage names the cached tokens."""
    return orjson.dumps(
        {
            "id": request_id,
            "object": "text_completion",
            "created": created,
            "model": model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": _usage(prompt, completion, details),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )
