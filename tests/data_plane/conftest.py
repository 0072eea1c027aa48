"""One simulator and one gateway for the tests of a module that do not break them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.stack import Gateway, Simulator, create_key, served_by, start_gateway, start_sim


@dataclass
class Stack:
    sim: Simulator
    gateway: Gateway
    key: str

    def post(self, path: str = "/v1/chat/completions", *, key: str | None = None, **request: object) -> httpx.Response:
        """`request` as in httpx.post; `key` '' sends none."""
        sent = self.key if key is None else key
        headers = {"authorization": f"Bearer {sent}"} if sent else {}
        headers |= request.pop("headers", {})  # type: ignore[arg-type,operator]
        return httpx.post(self.gateway.url + path, headers=headers, timeout=30, **request)  # type: ignore[arg-type]

    def logged(self, **expected: object) -> dict[str, Any]:
        """The last request's log entry, once it is the one expected: it is written after the answer has ended."""
        deadline = time.monotonic() + 30
        while True:
            entry = self.gateway.requests[-1] if self.gateway.requests else {}
            if all(entry.get(name) == value for name, value in expected.items()):
                return entry
            assert time.monotonic() < deadline, f"expected {expected} in {entry}"
            time.sleep(0.01)

    def still_serves(self) -> None:
        answer = self.post(json=chat("are you there?", max_tokens=2))
        assert answer.status_code == 200, answer.text
        self.logged(request_id=answer.headers["x-request-id"])


def chat(text: str = "Hello", **fields: object) -> dict[str, object]:
    return {"model": "sim", "messages": [{"role": "user", "content": text}], **fields}


# So long that a busy machine is not taken for an engine that hangs, and so short that one is found out within a test.
PATIENT = {"total_s": 50.0, "first_token_s": 30.0, "between_tokens_s": 30.0, "heartbeat_s": 30.0, "connect_s": 10.0}
IMPATIENT = {"total_s": 4.0, "first_token_s": 2.0, "between_tokens_s": 2.0}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with (
        start_sim(rate=200, model="sim", prompt_tokens_details=True) as sim,
        start_gateway(
            {
                "models": [
                    served_by(sim, max_model_len=32768),
                    {"id": "down", "upstreams": ["http://127.0.0.1:1"]},
                ],
                "timeouts": PATIENT,
                "limits": {"window_s": 3.0},
                "max_body_bytes": 1_000_000,
            }
        ) as gateway,
    ):
        yield Stack(sim, gateway, create_key(gateway))


@pytest.fixture(scope="module")
def impatient(stack: Stack) -> Iterator[Stack]:
    """The same engine behind a gateway that does not wait long."""
    with start_gateway({"models": [served_by(stack.sim, max_model_len=32768)], "timeouts": IMPATIENT}) as gateway:
        yield Stack(stack.sim, gateway, create_key(gateway))


@pytest.fixture
def sim(stack: Stack) -> Simulator:
    stack.sim.reset()
    return stack.sim
