"""GET /healthz (this process lives) and /readyz (send it requests)."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from starlette.types import Receive, Scope, Send

from ..lifecycle import Lifecycle
from ..record import SCOPE_KEY
from .sink import send_json


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
