"""Several engines behind one gateway, and what they are asked while they break off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import openai

from tests.data_plane.conftest import chat
from tests.data_plane.streamed import Streamed
from tests.support.stack import Gateway, Simulator, create_key, served_by, start_gateway

T = TypeVar("T")


CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


TIMEOUTS = {"connect_s": 5.0, "first_token_s": 30.0, "between_tokens_s": 2.0, "heartbeat_s": 30.0, "total_s": 50.0}


FAILOVER = {"spread_s": 0.05}


SPLIT = "Tell me of the sea 3"  # answered with characters in several tokens


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}}


BREAKS = [
    "abort@7",
    "close@7",
    "end@7",
    "error@7",
    "error@7:nodone",
    "engine@7",
    "shutdown@7",
    "stall@7",
]


@dataclass
class Fleet:
    sims: list[Simulator]
    gateway: Gateway
    key: str
    undisturbed: dict[str, Streamed] = field(default_factory=dict)
    turn: int = 0

    def post(self, path: str, body: dict[str, Any], *, wish: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}"}
        if wish is not None:
            headers["x-cloudach-failover"] = wish
        return httpx.post(self.gateway.url + path, headers=headers, json=body, timeout=60)

    def stream(self, path: str, body: dict[str, Any], *, wish: str | None = None) -> Streamed:
        answer = self.post(path, {**body, "stream": True}, wish=wish)
        assert answer.status_code == 200, answer.text
        self.last_id = answer.headers["x-request-id"]
        return Streamed(answer.content)

    def plain(self, path: str, body: dict[str, Any]) -> Streamed:
        """The same without a fault, asked once."""
        name = json.dumps([path, body])
        if name not in self.undisturbed:
            self.reset()
            self.undisturbed[name] = self.stream(path, body)
            assert self.undisturbed[name].done
        self.reset()
        return self.undisturbed[name]

    def reset(self) -> None:
        for sim in self.sims:
            sim.reset()

    def arm(self, fault: str, times: int | None = 1) -> None:
        """Once at each engine: each of them breaks off, until the last."""
        for sim in self.sims:
            sim.arm(fault, times)

    def wake(self) -> int:
        return sum(sim.wake() for sim in self.sims)

    def broken(self, fault: str, ask: Callable[[], T]) -> T:
        """`ask` when the first engine that was asked broke off, and no other: which one that is, is the balancer's."""
        self.turn = (self.turn + 1) % len(self.sims)  # the one that failed last is not asked first
        sim = self.sims[self.turn]
        for _ in range(100):
            self.reset()
            sim.arm(fault)
            answer = ask()
            if not httpx.get(f"{sim.url}/sim/faults").json()["data"]:
                return answer
        raise AssertionError("it was never asked")

    def asked(self) -> int:
        """Requests that engines were asked since the last reset."""
        return sum(sim.stats()["requests_total"] for sim in self.sims)

    def logged(self, request_id: str | None = None) -> dict[str, Any]:
        wanted = request_id or self.last_id
        deadline = time.monotonic() + 30
        while True:
            for entry in reversed(self.gateway.requests):
                if entry["request_id"] == wanted:
                    return entry
            assert time.monotonic() < deadline, f"no log line of {wanted}"
            time.sleep(0.01)

    def sdk(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.gateway.base_url, api_key=self.key, max_retries=0)


@contextmanager
def fleet_of(sims: Sequence[Simulator], **config: Any) -> Iterator[Fleet]:
    upstreams = [sim.url for sim in sims]
    model = {**served_by(), "upstreams": upstreams, **config.pop("model", {})}
    settings = {
        "models": [model],
        "timeouts": {**TIMEOUTS, **config.pop("timeouts", {})},
        "failover": {**FAILOVER, **config.pop("failover", {})},
        **config,
    }
    with start_gateway(settings) as gateway:
        yield Fleet(list(sims), gateway, create_key(gateway))


def asking(path: str, text: str = SPLIT, **fields: Any) -> dict[str, Any]:
    if path == CHAT:
        return chat(text, **fields)
    return {"model": "sim", "prompt": text, **fields}


USAGES: list[dict[str, Any]] = [
    {},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {"include_usage": False}},
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
]


def begun(sim: Simulator, *, streams: int = 1, tokens: int = 2) -> bool:
    running = [request for request in sim.requests() if request["state"] == "running"]
    return len(running) >= streams and all(request["sent_tokens"] >= tokens for request in running)
