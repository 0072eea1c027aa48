"""An API server that says what a test wants it to say, over real HTTP, asked by each of the transports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cloudach_kube import light, official
from cloudach_kube.access import Access
from cloudach_kube.client import KubeClient
from cloudach_kube.transport import Transport

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def kubeconfig(path: Path, url: str, user: dict[str, Any]) -> Path:
    found = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(found))
    return path


@asynccontextmanager
async def by_httpx(config: Path) -> AsyncIterator[Transport]:
    transport = light.LightTransport(Access.find(config), agent="test")
    try:
        yield transport
    finally:
        await transport.close()


@asynccontextmanager
async def by_the_official_client(config: Path) -> AsyncIterator[Transport]:
    async with official.connect(config, agent="test") as transport:
        yield transport


class Server:
    """`answer` is what it does. `requests` holds all that it was asked. Answers may wait for `over`, its end."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.answer: Answer = nothing
        self.over = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        return await self.answer(request)

    def watched(self, *lines: bytes, then: str = "wait") -> None:
        """Each watch sends these bytes, and then waits or ends."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for line in lines:
                await response.write(line)
            if then == "wait":
                await self.over.wait()
            return response

        self.answer = answer

    def says(self, status: int, body: Any) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status)

        self.answer = answer


async def nothing(request: web.Request) -> web.StreamResponse:
    return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        made.url = f"http://{host}:{port}"
        yield made
    finally:
        made.over.set()
        await runner.cleanup()


@pytest.fixture(params=[by_httpx, by_the_official_client])
async def transport(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> AsyncIterator[Transport]:
    async with request.param(kubeconfig(tmp_path / "config", server.url, {"token": "t"})) as made:
        yield made


@pytest.fixture
def client(transport: Transport) -> KubeClient:
    """It waits for a second."""
    return KubeClient(transport, manager="tester", timeout_s=1)
