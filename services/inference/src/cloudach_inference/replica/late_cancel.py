"""This ASGI middleware lets the application hear of a client's departure before it is cancelled.

Ray Serve cancels the handler at once. vLLM's handler of answers in one piece (`with_cancellation`) listens for the
disconnect by itself. When it is cancelled from outside, it leaves its generation running to the last token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_PATIENCE_S = 1.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class LateCancel:
    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        handler = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            await asyncio.shield(handler)
        except asyncio.CancelledError:
            if not handler.done():
                await asyncio.wait([handler], timeout=_PATIENCE_S)
                handler.cancel()
            raise
