"""This ASGI middleware before an engine serves what the gateway asks for, and only to callers with the engine's key.

vLLM's own check looks at a few prefixes alone. So `POST /invocations` generates for strangers, and `/scale_elastic_ep`
and `/docs` answer them. It also knows only the keys that it began with, while a Secret may change.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

from cloudach_service.settings import header_text

KEY_VARIABLE = "VLLM_API_KEY"
KEY_FOLDER = Path("/var/run/cloudach/engine-key")
"""Where a pod finds its key: the files `key` and, while one key replaces another, `also`."""

SERVED = frozenset(
    {
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/detokenize"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),  # the gateway does not ask for it, but operators' Prometheus does, with the key
    }
)
HEALTH = frozenset({("GET", "/health"), ("HEAD", "/health")})

_FRESH_S = 2.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Keys:
    """It holds the keys that an engine takes: those of the folder, which follows the Secret, or else the first one.

    Raises ValueError for a first key that can be in no header.
    """

    def __init__(
        self, first: str | None, folder: Path = KEY_FOLDER, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first = header_text(first) if first else ""
        self._folder = folder
        self._clock = clock
        self._looked = -_FRESH_S
        self._sums: tuple[bytes, ...] = ()
        self.locked = bool(self._first) or folder.is_dir()

    @classmethod
    def taken_from_environment(cls) -> Keys:
        """Removes the variable, so that vLLM neither checks it by itself nor hands it on to its processes."""
        return cls(_first_key())

    def admit(self, authorization: bytes) -> bool:
        """Tells if this header has one of the keys. An engine without a lock admits every request."""
        if not self.locked:
            return True
        scheme, _, key = authorization.partition(b" ")
        offered = hashlib.sha256(key.strip()).digest()
        fits = [hmac.compare_digest(offered, known) for known in self._known()]  # all of them, however many fit
        return scheme.lower() == b"bearer" and any(fits)

    def _known(self) -> tuple[bytes, ...]:
        now = self._clock()
        if now - self._looked >= _FRESH_S:
            self._looked = now
            keys = [key for key in map(self._read, ("key", "also")) if key] or [self._first]
            self._sums = tuple(hashlib.sha256(key.encode("latin-1")).digest() for key in keys if key)
        return self._sums

    def _read(self, name: str) -> str:
        try:
            return header_text((self._folder / name).read_text("latin-1"))
        except (OSError, ValueError):
            return ""


@cache
def _first_key() -> str | None:
    """Reads the key once a process, because the second time there would be none, and so no lock."""
    return os.environ.pop(KEY_VARIABLE, None)


class Lock:
    """`more` are prefixes of further paths, which are served to callers with the key."""

    def __init__(self, app: Application, keys: Keys, more: Collection[str] = ()) -> None:
        self._app = app
        self._keys = keys
        self._more = tuple(more)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked = scope["method"], scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) or "/"
            if asked not in HEALTH:
                if not self._keys.admit(_authorization(scope)):
                    await _refuse(send, 401, b'{"error":"Unauthorized"}')
                    return
                if asked not in SERVED and not (self._more and asked[1].startswith(self._more)):
                    await _refuse(send, 404, b'{"detail":"Not Found"}')
                    return
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)


def _authorization(scope: Message) -> bytes:
    """Returns an empty value if there is no such header, or several."""
    found = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    return found[0] if len(found) == 1 else b""


async def _refuse(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
