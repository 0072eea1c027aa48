"""One gateway process serves the application on a listening socket until it is told to stop. Then it drains."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
from collections.abc import Generator

import uvicorn
import uvloop
from cloudach_service import logs, processes
from cloudach_service.log_level import LevelSignals

from . import exports
from .app import HEALTH_PATHS, build
from .client.door import Door, most_connections
from .client.http_protocol import EnvelopeHttpProtocol
from .lifecycle import Lifecycle
from .settings import OWN_LOGGERS, Settings

_log = logging.getLogger("cloudach.gateway")

_BACKLOG = 2048

_LAST_ANSWERS_S = 0.5

_YOUNG_OBJECTS = 5_000  # until the garbage collector looks at them: 700 by default, which is every tenth request

# Signals closer together are one wish: a service manager signals the whole group, and our parent passes its own on.
_SAME_WISH_S = 1.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leaves signals to `_serve`, because uvicorn's own handling closes the door before the drain."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes what is there after the start from the garbage collector, because it stays until the end.

        To look at it took longer than to look at all that requests leave. It looks at those less often, because
        requests leave no reference cycles behind: what they make is freed when they end.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])

    async def close_the_door(self) -> None:
        """Takes no more connections, so that another process gets them, and answers what is on its way on its own.

        uvicorn would end connections without reading the request.
        """
        self.close_listeners()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ANSWERS_S):
                while self.server_state.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    def close_listeners(self) -> None:
        for listening in self.servers if self.started else ():
            listening.close()


class _Clients:
    """The clients of one process are told that it ends, and leave one by one."""

    def __init__(self, server: _Server, door: Door, parting_s: float) -> None:
        self._server = server
        self._door = door
        self._parting_s = parting_s

    async def leave(self) -> None:
        """Waits until the clients have left, and closes the listeners.

        Clients that connect after the time to leave are not waited for before the listeners close. There is always one
        more of them where no other process takes new connections.
        """
        for connection in list(self._connections):
            connection.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._parting_s):
                await self._gone(self._connections)
        await self._gone(set(self._connections))
        self._server.close_listeners()
        await asyncio.sleep(0)  # those that have been accepted are made
        await self._gone(self._connections)

    @property
    def _connections(self) -> set[EnvelopeHttpProtocol]:
        return self._server.server_state.connections  # type: ignore[return-value]

    async def _gone(self, these: set[EnvelopeHttpProtocol]) -> None:
        while these & self._connections:
            self._door.one_left.clear()
            await self._door.one_left.wait()


def run(settings: Settings, redis_url: str, listener: socket.socket, level: LevelSignals) -> None:
    """Serves until SIGTERM or SIGINT, and returns once it has drained. A second signal skips the drain."""
    uvloop.run(_serve(settings, redis_url, listener, level))


def run_as_child(settings: Settings, redis_url: str, listener: socket.socket, parent: int) -> None:
    """Serves as `run` does, in a process of its own that stops when its parent dies."""
    os.setpgid(0, 0)  # Ctrl-C reaches the supervisor alone, which passes it on once
    if not processes.bind_to(parent):
        return
    logs.configure("gateway", level=settings.log_level)
    level = LevelSignals(*OWN_LOGGERS)
    level.catch()
    with exports.of_logs(settings.telemetry):
        run(settings, redis_url, listener, level)


async def _serve(settings: Settings, redis_url: str, listener: socket.socket, level: LevelSignals) -> None:
    lifecycle = Lifecycle()
    door = Door(most_connections(settings.listen.max_connections), HEALTH_PATHS)
    protocol = functools.partial(EnvelopeHttpProtocol, timeouts=settings.timeouts, door=door, lifecycle=lifecycle)
    server = _Server(
        uvicorn.Config(
            build(settings, redis_url=redis_url, lifecycle=lifecycle),
            http=protocol,  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here asks who the client is
            backlog=_BACKLOG,
            timeout_graceful_shutdown=1,
        )
    )
    draining: list[asyncio.Task[None]] = []

    async def drain() -> None:
        timeouts = settings.timeouts
        _log.info("draining", extra={"running": len(lifecycle.running), "deadline_s": timeouts.drain_s})
        clients = _Clients(server, door, timeouts.parting_s)
        cut = await lifecycle.drain(clients, timeouts.drain_s, refuse_s=timeouts.refuse_s)
        _log.info("drained", extra={"cut": cut})
        await server.close_the_door()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    asked_at: list[float] = []

    def stop() -> None:
        asked_at.append(loop.time())
        if not draining:
            draining.append(asyncio.ensure_future(drain()))
        elif asked_at[-1] - asked_at[0] > _SAME_WISH_S:
            server.should_exit = server.force_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    level.heed(loop)
    await server.serve(sockets=[listener])
