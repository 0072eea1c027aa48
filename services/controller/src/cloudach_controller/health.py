"""The controller serves /healthz, /readyz and /metrics on one port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from cloudach_service.metrics import exposition
from prometheus_client import CONTENT_TYPE_LATEST


@contextlib.asynccontextmanager
async def serving(
    host: str, port: int, unready: Callable[[], str], notes: Callable[[], str] = lambda: ""
) -> AsyncIterator[int]:
    """Serves /healthz, /readyz and /metrics while the block runs, and yields the port. Raises OSError.

    `unready` says why the controller is not ready; an empty text means that it is. `notes` says what it cannot do
    although it is ready.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")  # that this is answered at all shows that the loop turns

    async def readyz(_: web.Request) -> web.Response:
        why = unready()
        lines = [why] if why else ["ok", *notes().splitlines()]
        return web.Response(text="\n".join(lines) + "\n", status=503 if why else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
