"""Requests of clients, broken at random in their bodies and headers. A number is a case."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.support.mutations import broken, mutated, text

JSON = "application/json"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {}}}}

# Fields that are put in before a body is broken, so that each of them is.
COMMON: dict[str, Any] = {
    "n": 2,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["a", "b"],
    "seed": 7,
    "user": "me",
    "logit_bias": {"5": 1.5},
    "presence_penalty": 0.1,
    "return_token_ids": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "min_tokens": 1,
    "ignore_eos": False,
    "structured_outputs": {"choice": ["a", "b"]},
}
OF_CHATS: dict[str, Any] = {
    "logprobs": True,
    "top_logprobs": 2,
    "tools": [TOOL],
    "tool_choice": "auto",
    "response_format": SCHEMA,
    "max_completion_tokens": 4,
    "prompt_logprobs": 0,
    "reasoning_effort": "low",
}
OF_COMPLETIONS: dict[str, Any] = {"logprobs": 1, "echo": True, "best_of": 2, "suffix": "x", "prompt_logprobs": 0}
OF_EMBEDDINGS: dict[str, Any] = {"encoding_format": "base64", "dimensions": 8, "user": "me"}
MESSAGES: tuple[Any, ...] = (
    {"role": "user", "content": "hi"},
    {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "7"},
)


@dataclass(frozen=True)
class Case:
    path: str
    body: bytes
    headers: dict[str, str]


def case(number: int, models: tuple[str, ...]) -> Case:
    random = Random(number)
    path = random.choice(("/v1/chat/completions", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"))
    fields = _fields(random, path, random.choice(models))
    if random.random() < 0.9:
        fields = mutated(random, fields, edits=3)
        if isinstance(fields, dict) and random.random() < 0.8:  # else most of them would fail for want of a model
            fields["model"] = random.choice(models)
    body = text(random, fields).encode("utf-8", "surrogatepass")
    if random.random() < 0.25:
        body = broken(random, body)
    headers = {"content-type": JSON}
    if random.random() < 0.15:
        body, headers = random.choice(_DRESSES)(random, body, headers)
    return Case(path, body, headers)


def _fields(random: Random, path: str, model: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": model}
    more = OF_EMBEDDINGS
    if path == "/v1/embeddings":
        fields["input"] = random.choice(("hi", ["hi", "ho"], [1, 2], [[1], [2]]))
    elif path == "/v1/completions":
        fields |= {"prompt": random.choice(("hi", ["hi", "ho"], [1, 2], [[1], [2]])), "max_tokens": 4}
        more = COMMON | OF_COMPLETIONS
    else:
        fields |= {"messages": random.sample(MESSAGES, random.randint(1, 3)), "max_tokens": 4}
        more = COMMON | OF_CHATS
    if path != "/v1/embeddings" and random.random() < 0.5:
        fields["stream"] = True
    for name in random.sample(sorted(more), random.randint(0, min(4, len(more)))):
        fields[name] = more[name]
    return fields


Dressed = tuple[bytes, dict[str, str]]


def _compressed(random: Random, body: bytes, headers: dict[str, str]) -> Dressed:
    name = random.choice(("gzip", "deflate", "br", "gzip, gzip", "x"))
    data = zlib.compress(body) if name == "deflate" else gzip.compress(body)
    return broken(random, data) if random.random() < 0.5 else data, headers | {"content-encoding": name}


def _other_type(random: Random, body: bytes, headers: dict[str, str]) -> Dressed:
    kinds = (f"{JSON}; charset=utf-16", "text/plain", "", "application/vnd.api+json", f"{JSON};", "multipart/form-data")
    return body, headers | {"content-type": random.choice(kinds)}


def _other_charset(random: Random, body: bytes, headers: dict[str, str]) -> Dressed:
    return body.decode("utf-8", "replace").encode(random.choice(("utf-8-sig", "utf-16", "utf-32-le"))), headers


def _wishes(random: Random, body: bytes, headers: dict[str, str]) -> Dressed:
    named = random.choice(("x-cloudach-failover", "x-request-id", "x-stainless-retry-count", "accept", "traceparent"))
    return body, headers | {named: random.choice(("off", "report", "x" * 3000, "-1", "é"))}


def _nothing(random: Random, _: bytes, headers: dict[str, str]) -> Dressed:
    return random.choice((b"", b"null", b"[]", b"5", b'""', b"{}", json.dumps([{}] * 1000).encode())), headers


_DRESSES: tuple[Callable[[Random, bytes, dict[str, str]], Dressed], ...] = (
    *(_compressed, _compressed, _other_type, _other_charset, _wishes, _nothing),
)
