"""Answers of engines, broken at random in every layer: JSON, events, HTTP. A number is a case."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.support.mutations import JUNK, broken, mutated, text
from tests.support.wire import REASONS, STREAM_HEAD, chunked, response, sse

MAX_TOKENS = 64


@dataclass(frozen=True)
class Case:
    """What the client asks, and what the engine says to it, in order; the last one again and again."""

    path: str
    model: str
    request: dict[str, Any]
    answers: tuple[bytes, ...]


def case(number: int) -> Case:
    random = Random(number)
    model, path, request, events = _asked(random, number)
    answer = _whole_answer(path) if not events else _events(path, model)
    layer = random.choice((_json_layer, _json_layer, _json_layer, _event_layer, _event_layer, _http_layer, _http_layer))
    said = [layer(random, answer)]
    if random.random() < 0.2:  # another attempt goes well
        said.append(_http(answer))
    return Case(path, model, request, tuple(said))


def _asked(random: Random, number: int) -> tuple[str, str, dict[str, Any], bool]:
    model = random.choice(("vllm", "openai"))
    path = random.choice(("/v1/chat/completions", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"))
    request: dict[str, Any] = {"model": model, "user": f"case-{number}"}
    if path == "/v1/embeddings":
        return model, path, request | {"input": "hi"}, False
    request |= {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "hi"}
    request["max_tokens"] = MAX_TOKENS
    form = random.randrange(6)
    if form == 0:
        return model, path, request | {"prompt_logprobs": 1}, False
    if form > 1:
        request["stream"] = True
        if random.random() < 0.5:
            request["stream_options"] = {
                "include_usage": random.random() < 0.7,
                "continuous_usage_stats": random.random() < 0.3,
            }
    if random.random() < 0.2:
        request["n"] = 2
    if random.random() < 0.2:
        request["return_token_ids"] = True
    if random.random() < 0.2:
        request["stop"] = ["zzz"]
    if random.random() < 0.2:
        request["temperature"] = 0
    return model, path, request, True


USAGE = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 1}}


def _events(path: str, model: str) -> list[dict[str, Any]]:
    chat = "chat" in path
    head = {"id": "c", "object": "chat.completion.chunk" if chat else "text_completion", "created": 1, "model": model}

    def choice(piece: str, number: int, end: str | None = None) -> dict[str, Any]:
        said: dict[str, Any] = {"index": 0, **({"delta": {"content": piece}} if chat else {"text": piece})}
        said |= {"logprobs": None, "finish_reason": end}
        if end or not chat:
            said["stop_reason"] = None
        if not chat:
            said["prompt_token_ids"] = [1, 2, 3] if number == 0 and model == "vllm" else None
        return said | ({"token_ids": [number]} if model == "vllm" else {})

    found = [head | {"choices": [choice(f" word{number}", number)]} for number in range(5)]
    found.append(head | {"choices": [choice(" end", 5, "stop")]})
    found.append(head | {"choices": [], "usage": USAGE})
    if chat:
        role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        found.insert(0, head | {"choices": [role]} | ({"prompt_token_ids": [1, 2, 3]} if model == "vllm" else {}))
    return found


def _whole_answer(path: str) -> dict[str, Any]:
    if path == "/v1/embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]
        return {"object": "list", "model": "its own", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    chat = "chat" in path
    choice = {"message": {"role": "assistant", "content": "whole"}} if chat else {"text": "whole"}
    return {
        "id": "c",
        "object": "chat.completion" if chat else "text_completion",
        "created": 1,
        "model": "its own",
        "choices": [{"index": 0, **choice, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    }


Answer = dict[str, Any] | list[dict[str, Any]]
ERRORS: tuple[Any, ...] = (
    {"error": {"message": "too long", "type": "BadRequestError", "code": 400}},
    {"error": {"message": "it broke", "code": 500}},
    {"error": {"message": "EngineCore encountered an issue", "code": 500}},
    {"error": {"message": "too long", "code": "400"}},
    {"error": "it broke"},
    {"object": "error", "message": "no", "code": 400},
    {"detail": [{"msg": "no"}]},
    {"error": None},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]},
    {"choices": [{"index": 0, "finish_reason": "error"}]},
)


def _json_layer(random: Random, answer: Answer) -> bytes:
    """Well-formed HTTP with JSON of any shape."""
    if isinstance(answer, dict):
        return response(text(random, mutated(random, answer, edits=3)))
    said: list[Any] = list(answer)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(said))
        kind = random.randrange(7)
        if kind < 4:
            said[at] = mutated(random, said[at], edits=3)
        elif kind == 4:
            said.insert(at, random.choice(ERRORS))
        elif kind == 5:
            said[at] = random.choice(JUNK)
        else:
            said.insert(at, said[random.randrange(len(said))])
    return _stream([text(random, one) for one in said], done=random.random() < 0.9)


def _event_layer(random: Random, answer: Answer) -> bytes:
    """Well-formed HTTP with any bytes."""
    good = json.dumps(answer).encode() if isinstance(answer, dict) else _sse(answer)
    kind = random.choice(
        ("application/json", "text/event-stream", "text/event-stream", "text/html", "text/plain", None)
    )
    if isinstance(answer, list) and random.random() < 0.6:
        kind = "text/event-stream"
    return response(broken(random, good), kind=kind)


def _http_layer(random: Random, answer: Answer) -> bytes:
    return random.choice(_OF_HTTP)(random, answer)


def _sse(answer: list[dict[str, Any]]) -> bytes:
    return sse(*(json.dumps(one, separators=(",", ":")) for one in answer), "[DONE]")


def _stream(payloads: list[str], *, done: bool) -> bytes:
    pieces = [sse(payload) for payload in [*payloads, *(["[DONE]"] if done else [])]]
    return STREAM_HEAD + chunked(*pieces)


def _http(answer: Answer) -> bytes:
    if isinstance(answer, dict):
        return response(json.dumps(answer))
    return _stream([json.dumps(one, separators=(",", ":")) for one in answer], done=True)


def _body(answer: Answer) -> bytes:
    return json.dumps(answer).encode() if isinstance(answer, dict) else _sse(answer)


def _kind(answer: Answer) -> str:
    return "application/json" if isinstance(answer, dict) else "text/event-stream"


def _any_bytes(random: Random, answer: Answer) -> bytes:
    return broken(random, _http(answer))


def _cut(random: Random, answer: Answer) -> bytes:
    said = _http(answer)
    return said[: random.randrange(len(said))]


def _wrong_length(random: Random, answer: Answer) -> bytes:
    length = random.choice(("0", "1", "999999", "-1", "x", "1, 2", str(2**64), "0x10"))
    return response(_body(answer), kind=_kind(answer), headers={"content-length": length})


def _wrong_chunks(random: Random, answer: Answer) -> bytes:
    size = random.choice((b"zz", b"", b"-1", b"f" * 20, b"5;" + b"x" * 100_000, b"0", b"7fffffffffffffff"))
    return STREAM_HEAD + size + b"\r\n" + _body(answer) + b"\r\n0\r\n\r\n"


def _huge_head(random: Random, answer: Answer) -> bytes:
    many = b"".join(b"x-%d: %b\r\n" % (number, b"y" * 200) for number in range(3000))
    one = b"x: " + b"y" * 600_000 + b"\r\n"
    endless = b"HTTP/1.1 100 Continue\r\n\r\n" * 30_000
    head = random.choice((b"HTTP/1.1 200 OK\r\n" + many, b"HTTP/1.1 200 OK\r\n" + one, endless))
    return head + b"content-length: 2\r\n\r\n{}" + _body(answer)


def _other_status(random: Random, answer: Answer) -> bytes:
    status = random.choice(
        (*REASONS, 100, 101, 201, 204, 301, 304, 401, 403, 404, 408, 413, 429, 502, 503, 504, 599, 999)
    )
    said = random.choice((json.dumps(random.choice(ERRORS)), "<html>", "words", "", '{"error":' + "[" * 2000))
    waits = random.choice(({}, {"retry-after": random.choice(("3", "-1", "x", "9" * 50, "Mon, 1 Jan 1 0:0:0 GMT"))}))
    return response(said, status=status, kind=random.choice(("application/json", "text/plain", None)), headers=waits)


def _encoded(random: Random, answer: Answer) -> bytes:
    named = random.choice(("gzip", "br", "deflate", "gzip, gzip", "\x01", "identity"))
    data = gzip.compress(_body(answer)) if random.random() < 0.7 else _body(answer)
    return response(data, kind=_kind(answer), headers={"content-encoding": named})


def _nothing(random: Random, answer: Answer) -> bytes:
    return random.choice(
        (b"", b"\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/0.9 200\r\n\r\n", b"\x16\x03\x01\x02", _body(answer))
    )


def _twice(_: Random, answer: Answer) -> bytes:
    return _http(answer) * 2


_OF_HTTP: tuple[Callable[[Random, Answer], bytes], ...] = (
    *(_any_bytes, _any_bytes, _any_bytes, _cut, _cut, _wrong_length, _wrong_chunks, _huge_head),
    *(_other_status, _other_status, _encoded, _nothing, _twice),
)
