"""GET /healthz (this process lives), /readyz (send it requests) and /health (the same, as vLLM says it)."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from starlette.types import Receive, Scope, Send

from ..client.sink import send_json
from ..lifecycle import Lifecycle
from ..record import SCOPE_KEY


class HealthEndpoint:
    """`notes`: what is worth knowing of a gateway that serves nonetheless, or says why it does not yet."""

    def __init__(self, lifecycle: Lifecycle, *, readiness: bool, notes: Callable[[], dict[str, str]] = dict) -> None:
        self._lifecycle = lifecycle
        self._readiness = readiness
        self._notes = notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[SCOPE_KEY].route = "health"
        if not self._readiness or self._lifecycle.ready:
            await self._say(send, "ok", 200)
        elif self._lifecycle.draining:
            await self._say(send, "draining", 503)
        else:
            await self._say(send, "starting", 503)

    async def _say(self, send: Send, status: str, code: int) -> None:
        await send_json(send, orjson.dumps({"status": status, **self._notes()}), status=code)


class BareHealthEndpoint:
    """200 while it is ready, otherwise 503, without a body: what load tools and routers made for vLLM ask for."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[SCOPE_KEY].route = "health"
        status = 200 if self._lifecycle.ready else 503
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
