"""One multiplexed connection to one Redis, for scripts only. It does once a tick what redis-py does for each call.

Commands of the same tick go out in one write, and replies are matched in order. A round trip costs a quarter to a tenth
of the CPU that redis-py's client takes for it: docs/adr/0029-taken-and-made.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis

from ..redis_address import Address
from . import layout
from .scripts import Script
from .trouble import StoreDown, from_reply

Reply = Any  # bytes, int, None, or a list of them
Argument = str | bytes | int

# A late timer does not prove a late Redis, because the loop itself may have been busy. So it looks for the reply again.
_SECOND_LOOK_S = 0.02


def pack(*parts: Argument) -> bytes:
    """Writes one RESP command."""
    command: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub wants exactly one part
    return command


class Link(asyncio.Protocol):
    """The connection, made by `open_link`. Each of its futures ends within about `timeout_s`."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._outgoing: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._suspect: asyncio.Future[Reply] | None = None
        self.closed: asyncio.Future[str] = self._loop.create_future()  # why

    def send(self, command: bytes) -> asyncio.Future[Reply]:
        """Sends a command. Its future may raise StoreDown or StoreError. A closed link raises StoreDown at once."""
        if self.closed.done() or self._transport is None:
            raise StoreDown(self.closed.result() if self.closed.done() else "not connected")
        future: asyncio.Future[Reply] = self._loop.create_future()
        deadline = self._loop.time() + self._timeout_s
        if not self._waiting:  # otherwise commands of the same turn of the loop share a write
            self._transport.write(command)
        else:
            if not self._outgoing:
                self._loop.call_soon(self._flush)
            self._outgoing.append(command)
        self._waiting.append((future, deadline))
        if self._watch is None:
            self._watch = self._loop.call_at(deadline, self._check)
        return future

    def run(self, script: Script, keys: tuple[str, ...], args: Sequence[Argument]) -> asyncio.Future[Reply]:
        return self.send(pack(b"EVALSHA", script.sha, len(keys), *keys, *args))

    def close(self, why: str = "closed") -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(why)

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)  # the transport closes its socket in the next tick

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but not by inheritance

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                future, _ = waiting.popleft()
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    future.set_exception(from_reply(str(reply)))
                else:
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.close(f"not Redis' protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection lost: {exc}" if exc else "connection closed by Redis")

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and not self.closed.done():
            self._transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))

    def _check(self) -> None:
        self._watch = None
        if not self._waiting:
            self._suspect = None
            return
        oldest, deadline = self._waiting[0]
        now = self._loop.time()
        if deadline <= now and oldest is self._suspect:
            self.close(f"no reply within {self._timeout_s:g} s")
            return
        self._suspect = oldest if deadline <= now else None
        self._watch = self._loop.call_at(max(deadline, now + _SECOND_LOOK_S), self._check)

    def _end(self, why: str) -> None:
        if not self.closed.done():
            self.closed.set_result(why)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(StoreDown(why))


async def open_link(
    address: Address, node: tuple[str, int] | None, scripts: Sequence[Script], timeout_s: float
) -> Link:
    """Connects, authenticates and loads the scripts. `node` is where a sentinel sent us. Raises StoreDown."""
    loop = asyncio.get_running_loop()
    link: Link | None = None
    try:
        async with asyncio.timeout(4 * timeout_s):  # TCP, TLS and three commands
            if address.path is not None:
                _, link = await loop.create_unix_connection(lambda: Link(timeout_s), address.path)
            else:
                host, port = node or address.nodes[0]
                context = address.ssl_context()
                _, link = await loop.create_connection(
                    lambda: Link(timeout_s), host, port, ssl=context, server_hostname=host if context else None
                )
            greeting = [link.send(command) for command in _greeting(address, scripts)]
            for reply in await asyncio.gather(*greeting, return_exceptions=True):
                if isinstance(reply, BaseException):
                    raise reply
        return link
    except (OSError, TimeoutError, asyncio.CancelledError) as error:
        if link is not None:
            link.close()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise StoreDown(f"cannot connect to {address.where}: {error or type(error).__name__}") from error
    except Exception as error:
        if link is not None:
            link.close()
        raise StoreDown(f"{address.where}: {error}") from error


def _greeting(address: Address, scripts: Sequence[Script]) -> list[bytes]:
    commands = []
    if address.password is not None:
        names = (address.username,) if address.username else ()
        commands.append(pack("AUTH", *names, address.password))
    if address.db:
        commands.append(pack("SELECT", address.db))
    # This is a write, because a replica, a full or a read-only Redis is of no use.
    commands.append(pack("SET", layout.PROBE, "1", "EX", 60))
    commands += [pack("SCRIPT", "LOAD", script.source) for script in scripts]
    return commands
