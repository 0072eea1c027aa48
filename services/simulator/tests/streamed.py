"""Streams of the simulator, as a client gets them."""

from __future__ import annotations

import json
from typing import Any

import httpx

from .conftest import CHAT, Sim

BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell me of the sea"}],
    "stream": True,
    "max_tokens": 12,
    "ignore_eos": True,
    "return_token_ids": True,
    "stream_options": {"include_usage": True},
}


async def collect(sim: Sim, fault: str, **fields: Any) -> tuple[str, Exception | None]:
    """A stream's text, and how it broke."""
    text = ""
    try:
        async with sim.http.stream("POST", CHAT, json={**BODY, **fields}, headers={"x-sim-fault": fault}) as response:
            assert response.status_code == 200, await response.aread()
            async for part in response.aiter_text():
                text += part
    except httpx.HTTPError as error:
        return text, error
    return text, None


def events(text: str) -> list[Any]:
    """Reads server-sent events as the standard says."""
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        data = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if data:
            joined = "\n".join(data)
            found.append(joined if joined == "[DONE]" else json.loads(joined))
    return found


def token_ids(told: list[Any]) -> list[int]:
    return [
        token
        for event in told
        if isinstance(event, dict)
        for choice in event.get("choices", [])
        for token in choice.get("token_ids") or []
    ]
