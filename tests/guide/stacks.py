"""The stack that the examples talk to: one of our own, or the one that the environment names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import BIN
from tests.support.stack import ALIAS, Gateway, Simulator, create_key, served_by, start_gateway, start_sim

RATE = 30.0
"""Tokens a second of the simulator: slow enough to see one after the other."""
SLOW = 6.0
"""Of an answer that is left: it would go on for long."""
HEARTBEAT_S = 1.0
WINDOW_S = 6.0

_PATIENCE_S = 300.0
_PROBE_TOKENS = 24


@dataclass(frozen=True)
class Answer:
    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


@dataclass
class Stack:
    base_url: str
    api_key: str
    model: str = ALIAS
    own: tuple[Simulator, Gateway] | None = None
    """Simulator and gateway, if we started them: with them come faults, special limits, and a known speed."""
    _answers: dict[str, Answer] = field(default_factory=dict)
    _repeats_itself: bool | None = None

    def env(self, **changes: str) -> dict[str, str]:
        """What a program finds: nothing of ours but the three variables of the guide."""
        known = {"CLOUDACH_BASE_URL": self.base_url, "CLOUDACH_API_KEY": self.api_key}
        if "CLOUDACH_MODEL" in os.environ and self.own is None:
            known["CLOUDACH_MODEL"] = os.environ["CLOUDACH_MODEL"]
        return {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"), **known, **changes}

    def answer(self, prompt: str) -> Answer | None:
        """What the model says to `prompt`, asked without streaming; None if it says something else each time."""
        if self._repeats_itself is None:
            first, second = (self._ask("Hello!", max_tokens=_PROBE_TOKENS) for _ in range(2))
            self._repeats_itself = first.text == second.text
        if not self._repeats_itself:
            return None
        if prompt not in self._answers:
            self._answers[prompt] = self._ask(prompt)
        return self._answers[prompt]

    def _ask(self, prompt: str, **more: Any) -> Answer:
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], **more}
        if self.own is not None:
            self.own[0].configure(rate=0)
        found = self.post(body).raise_for_status().json()
        if self.own is not None:
            self.own[0].configure(rate=RATE)
        choice, usage = found["choices"][0], found["usage"]
        return Answer(
            choice["message"]["content"], usage["prompt_tokens"], usage["completion_tokens"], choice["finish_reason"]
        )

    def post(self, body: dict[str, Any], api_key: str | None = None) -> httpx.Response:
        return httpx.post(
            f"{self.base_url}/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {api_key or self.api_key}"},
            timeout=_PATIENCE_S,
        )


def named_by_environment() -> Stack | None:
    base_url, api_key = os.environ.get("CLOUDACH_BASE_URL"), os.environ.get("CLOUDACH_API_KEY")
    if not base_url or not api_key:
        return None
    return Stack(base_url.rstrip("/"), api_key, os.environ.get("CLOUDACH_MODEL", ALIAS))


@contextlib.contextmanager
def own_stack() -> Iterator[Stack]:
    """Gateway with its embedded Valkey in front of the simulator."""
    config = {
        "limits": {"window_s": WINDOW_S},
        "timeouts": {"heartbeat_s": HEARTBEAT_S},
        "failover": {"enabled": False},  # what breaks is to reach the examples' own handling of errors
    }
    with start_sim(rate=RATE) as sim, start_gateway({**config, "models": [served_by(sim)]}) as gateway:
        yield Stack(gateway.base_url, create_key(gateway), own=(sim, gateway))


def write(folder: Path, name: str, code: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return path
