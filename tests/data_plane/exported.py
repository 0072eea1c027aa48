"""A gateway whose telemetry goes to a receiver in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.data_plane.conftest import PATIENT, chat
from tests.support.collector import Collector
from tests.support.ports import free_port
from tests.support.stack import Gateway, Simulator, create_key, served_by, start_gateway, start_sim


@dataclass
class Exported:
    sim: Simulator
    gateway: Gateway
    collector: Collector
    key: str

    def post(self, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> httpx.Response:
        """Each request has a connection of its own, so that every process gets some."""
        sent = {"authorization": f"Bearer {self.key}", **(headers or {})}
        body = chat(max_tokens=3) if body is None else body
        return httpx.post(f"{self.gateway.base_url}/chat/completions", json=body, headers=sent, timeout=60)

    def scraped(self) -> str:
        port = self.gateway.config["listen"]["metrics_port"]
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text


@contextmanager
def exported(
    signal: str,
    *,
    protocol: str = "http/protobuf",
    mode: str = "takes",
    processes: int = 1,
    settings: dict[str, Any] | None = None,
    env: dict[str, str | None] | None = None,
) -> Iterator[Exported]:
    """signal: `metrics` or `logs`. settings: further ones of the signal. env: instead of settings, with COLLECTOR.

    mode: what the receiver does; `absent`: there is none.
    """
    with (
        Collector(protocol, "takes" if mode == "absent" else mode) as collector,
        start_sim(rate=500, model="sim") as sim,
    ):
        url = f"http://127.0.0.1:{free_port()}" if mode == "absent" else collector.url
        own = {"endpoint": url, "protocol": protocol, **(settings or {})}
        variables = {name: value and value.replace("COLLECTOR", url) for name, value in (env or {}).items()}
        config: dict[str, Any] = {
            "models": [served_by(sim)],
            "timeouts": PATIENT,
            "listen": {"processes": processes, "metrics_port": free_port()},
            **({} if env else {"telemetry": {signal: own}}),
        }
        with start_gateway(config, variables or None) as gateway:
            yield Exported(sim, gateway, collector, create_key(gateway))
