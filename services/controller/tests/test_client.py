"""The connections to the API server, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from cloudach_controller.kube.client import MODELS, KubeClient, connect

_WATCHES = 300  # a namespace has ten


class _Server:
    """An API server with a list and endless watches."""

    def __init__(self) -> None:
        self.watches = 0
        self.all_there = asyncio.Event()
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        response = web.StreamResponse()
        await response.prepare(request)
        self.watches += 1
        if self.watches == _WATCHES:
            self.all_there.set()
        await self.over.wait()
        return response


@asynccontextmanager
async def connected(server: _Server, config: Path) -> AsyncIterator[KubeClient]:
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        _write(config, f"http://{host}:{port}")
        async with connect(config, 3) as api:
            yield api
    finally:
        server.over.set()
        await runner.cleanup()


def _write(config: Path, url: str) -> None:
    found = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    config.write_text(json.dumps(found))


async def test_watches_of_many_namespaces_leave_room_for_other_questions(tmp_path: Path) -> None:
    """Each watch holds a connection for good. A limit would stop all work, and the Lease would not be renewed."""
    server = _Server()

    async def watch(api: KubeClient, number: int) -> None:
        async for _ in api.watch(MODELS, f"team-{number}", "1"):
            pass

    async with connected(server, tmp_path / "kubeconfig") as api, asyncio.TaskGroup() as group:
        watching = [group.create_task(watch(api, number)) for number in range(_WATCHES)]
        async with asyncio.timeout(30):
            await server.all_there.wait()
        assert await api.list(MODELS, "another") == ([], "1")
        for each in watching:
            each.cancel()
