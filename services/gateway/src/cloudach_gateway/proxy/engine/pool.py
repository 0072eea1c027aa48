"""Keeps connections to engines open between requests."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from .connection import Connection

IDLE_S = 30.0  # below what engines and HAProxy keep an idle connection open


_Name = tuple[str, int, bool]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream's base URL points to. prefix: its path, without a slash at the end."""

    host: str
    port: int
    tls: bool
    prefix: str
    authority: bytes  # for the Host header

    @property
    def name(self) -> _Name:
        """The key by which connections are kept. Paths make no difference."""
        return self.host, self.port, self.tls

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


class _Kept:
    """The connections to one origin.

    waiting: those that wait for their next request. count: all of them, also those that are being opened. left: none of
    them gets another request.
    """

    __slots__ = ("count", "left", "waiting")

    def __init__(self) -> None:
        self.count = 0
        self.left = False
        self.waiting: list[Connection] = []


class Pool:
    """The pool has no limit, because admission decides how many requests run."""

    def __init__(self, *, connect_s: float) -> None:
        self._connect_s = connect_s
        self._kept: dict[_Name, _Kept] = {}
        self._open: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None

    def idle(self, origin: Origin, *, young_s: float | None = None) -> Connection | None:
        """Returns the idle connection that was used last, if any. young_s: its greatest age; None: it may be older."""
        kept = self._kept.get(origin.name)
        if kept is None:
            return None
        now = asyncio.get_running_loop().time()
        while kept.waiting:
            connection = kept.waiting.pop()
            too_old = young_s is not None and now - connection.made_at > young_s
            if too_old or now - connection.idle_since > IDLE_S:
                connection.abort()
            elif not connection.closed:
                return connection
        return None

    async def connect(self, origin: Origin) -> Connection:
        """Raises OSError, TimeoutError among them."""
        loop = asyncio.get_running_loop()
        kept = self._kept.setdefault(origin.name, _Kept())
        kept.count += 1

        def one_less() -> None:
            kept.count -= 1
            if not kept.count and not kept.left:  # origins come and go, and their names would pile up
                del self._kept[origin.name]

        def gone(connection: Connection) -> None:
            if connection in self._open:
                self._open.discard(connection)
                one_less()

        def free(connection: Connection) -> None:
            if kept.left:
                connection.abort()
                return
            connection.idle_since = loop.time()
            waiting = kept.waiting
            while waiting and (waiting[0].closed or loop.time() - waiting[0].idle_since > IDLE_S):
                waiting.pop(0).abort()
            waiting.append(connection)

        connection = Connection(free, gone)
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
            one_less()
            raise
        if connection.closed:
            one_less()
            raise ConnectionResetError("closed as soon as it was open")
        connection.made_at = loop.time()
        self._open.add(connection)
        return connection

    def leave(self, origin: Origin) -> None:
        """Lets no connection to this origin take another request. Idle ones end now, the others with their answer."""
        kept = self._kept.pop(origin.name, None)
        if kept is not None:
            kept.left = True
            for connection in kept.waiting:
                connection.abort()
            kept.waiting.clear()

    @property
    def size(self) -> int:
        """How many connections are open, the idle ones included."""
        return len(self._open)

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls
