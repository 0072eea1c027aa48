"""Connections to engines, kept open between requests."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from .connection import Connection

IDLE_S = 30.0  # below what engines and HAProxy keep an idle connection open


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream's base URL points. `prefix`: its path, without a slash at the end."""

    host: str
    port: int
    tls: bool
    prefix: str
    authority: bytes  # for the Host header

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(url: str) -> Origin:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return Origin(
            host=parts.hostname or "",
            port=parts.port or (443 if tls else 80),
            tls=tls,
            prefix=parts.path.rstrip("/"),
            authority=parts.netloc.rpartition("@")[2].encode(),
        )


class Pool:
    """Without a limit: how much may run is admission's to say."""

    def __init__(self, *, connect_s: float) -> None:
        self._connect_s = connect_s
        self._idle: dict[tuple[str, int, bool], list[Connection]] = {}
        self._open: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None

    def idle(self, origin: Origin) -> Connection | None:
        """The connection that was used last, if one is there."""
        waiting = self._idle.get((origin.host, origin.port, origin.tls))
        now = asyncio.get_running_loop().time()
        while waiting:
            connection = waiting.pop()
            if now - connection.idle_since > IDLE_S:
                connection.abort()
            elif not connection.closed:
                return connection
        return None

    async def connect(self, origin: Origin) -> Connection:
        """Raises OSError, TimeoutError among them."""
        loop = asyncio.get_running_loop()
        name = (origin.host, origin.port, origin.tls)

        def free(connection: Connection) -> None:
            connection.idle_since = loop.time()
            waiting = self._idle.setdefault(name, [])
            while waiting and (waiting[0].closed or loop.time() - waiting[0].idle_since > IDLE_S):
                waiting.pop(0).abort()
            waiting.append(connection)

        connection = Connection(free, self._open.discard)
        try:
            async with asyncio.timeout(self._connect_s):
                await loop.create_connection(
                    lambda: connection,
                    origin.host,
                    origin.port,
                    ssl=self._context() if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
        except BaseException:
            connection.given_up()
            raise
        if connection.closed:
            raise ConnectionResetError("closed as soon as it was open")
        self._open.add(connection)
        return connection

    @property
    def size(self) -> int:
        """Open connections, idle ones included."""
        return len(self._open)

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls
