"""Simulators for tests: one in the test's own loop, and requests to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from cloudach_simulator.app import Simulator
from cloudach_simulator.config import SimConfig
from cloudach_simulator.server import serve
from cloudach_simulator.traces import Traces

CHAT = "/v1/chat/completions"


class Sim:
    """A running simulator with a client."""

    def __init__(self, simulator: Simulator, port: int) -> None:
        self.simulator = simulator
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.url, timeout=20)

    async def chat(self, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """A chat request."""
        body = {"messages": [{"role": "user", "content": "Tell me of the sea"}], **fields}
        return await self.http.post(CHAT, json=body, headers=headers)

    async def stats(self) -> dict[str, int]:
        """The ledger's totals."""
        return dict((await self.http.get("/sim/stats")).json())

    async def runs(self, count: int, tokens: int = 0, timeout_s: float = 20.0) -> None:
        """Wait until that many requests run, and each has so many tokens."""
        async with asyncio.timeout(timeout_s):
            while True:
                entries = (await self.http.get("/sim/requests")).json()["data"]
                if sum(e["state"] == "running" and e["generated_tokens"] >= tokens for e in entries) >= count:
                    return
                await asyncio.sleep(0.01)

    async def settled(self, timeout_s: float = 20.0) -> dict[str, int]:
        """The totals once nothing runs."""
        async with asyncio.timeout(timeout_s):
            while True:
                stats = await self.stats()
                if not stats["running"]:
                    return stats
                await asyncio.sleep(0.01)


StartSim = Callable[..., Awaitable[Sim]]


@pytest.fixture
async def start_sim() -> AsyncIterator[StartSim]:
    """Starts simulators in this loop: `await start_sim(rate=0)`."""
    started: list[tuple[asyncio.Server, Sim]] = []

    async def start(traces: Traces | None = None, **settings: Any) -> Sim:
        config = SimConfig(**{"rate": 0.0, "allow_exit": False, **settings})
        simulator = Simulator(config, asyncio.get_running_loop(), traces)
        server, port = await serve(simulator, "127.0.0.1", 0)
        sim = Sim(simulator, port)
        started.append((server, sim))
        return sim

    yield start
    for server, sim in started:
        await sim.http.aclose()
        server.close()
