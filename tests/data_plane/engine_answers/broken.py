"""A gateway before an engine that says exactly what a test gives it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import httpx

from tests.data_plane.streamed import Streamed
from tests.support.raw_engine import RawEngine
from tests.support.stack import Gateway

CHAT = "/v1/chat/completions"


COMPLETIONS = "/v1/completions"


EMBEDDINGS = "/v1/embeddings"


IN_ONE_PIECE = {"prompt_logprobs": 1}  # what the engine is asked for without a stream


REFUSAL_TEXT = "the prompt is too long by seven"


@dataclass
class Broken:
    """A gateway before an engine that says what a test has it say, in both dialects: models `vllm` and `openai`."""

    engine: RawEngine
    gateway: Gateway
    key: str

    def ask(self, *, model: str = "vllm", path: str = CHAT, **fields: Any) -> httpx.Response:
        body: dict[str, Any] = {"model": model, **fields}
        if path == CHAT:
            body.setdefault("messages", [{"role": "user", "content": "hi"}])
        else:
            body.setdefault("input" if path == EMBEDDINGS else "prompt", "hi")
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.post(self.gateway.url + path, json=body, headers=headers, timeout=30)

    def logged(self, answer: httpx.Response) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while True:
            for entry in reversed(self.gateway.requests):
                if entry["request_id"] == answer.headers["x-request-id"]:
                    return entry
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def billed(self, answer: httpx.Response) -> tuple[int, int]:
        entry = self.logged(answer)
        return entry["prompt_tokens"], entry["completion_tokens"]


def chunk(text: str, *ids: int, end: str | None = None, usage: Any = None, **more: Any) -> str:
    """As vLLM writes it in chats, to who asked for token ids."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": end}
    if ids:
        choice["token_ids"] = list(ids)
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "vllm"}
    return json.dumps(head | {"choices": [choice | more]} | ({"usage": usage} if usage else {}), separators=(",", ":"))


ROLE = (
    '{"id":"c","object":"chat.completion.chunk","created":1,"model":"vllm","choices":[{"index":0,'
    '"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":[1,2,3]}'
)


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


USAGE_CHUNK = json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": USAGE})


WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "its own",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop", "logprobs": None}
    ],
    "usage": USAGE,
}


def failed_with(answer: httpx.Response, stream: bool) -> dict[str, Any]:
    """The error, however it was told; a stream ends with it."""
    if answer.status_code != 200:
        found: dict[str, Any] = answer.json()["error"]
        return found
    assert stream, answer.text
    told = Streamed(answer.content)
    assert told.error is not None
    assert not told.done
    return told.error


GOOD = [ROLE, chunk("a", 7), chunk("b", 8, end="stop"), USAGE_CHUNK, "[DONE]"]
