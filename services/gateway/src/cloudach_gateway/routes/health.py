"""GET /healthz (this process lives) and /readyz (send it requests)."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from ..lifecycle import Lifecycle
from ..record import SCOPE_KEY
from .sink import send_json


class HealthEndpoint:
    def __init__(self, lifecycle: Lifecycle, *, readiness: bool) -> None:
        self._lifecycle = lifecycle
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[SCOPE_KEY].route = "health"
        if not self._readiness or self._lifecycle.ready:
            await send_json(send, b'{"status":"ok"}')
        elif self._lifecycle.draining:
            await send_json(send, b'{"status":"draining"}', status=503)
        else:
            await send_json(send, b'{"status":"starting"}', status=503)
