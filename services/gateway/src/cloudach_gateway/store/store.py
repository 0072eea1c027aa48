"""The store runs scripts on Redis, with a breaker, so that nobody waits for a Redis that is gone.

While Redis is up, every call ends within about `timeout_s`. The first failure closes the connection. From then on calls
raise StoreDown at once, and one background task tries again every `probe_every_s` until Redis answers. Each change of
state is logged once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from .. import redis_address
from . import cluster_redis, sentinel_redis
from .link_redis import Argument, Link, Reply, open_link, pack
from .scripts import Script
from .trouble import StoreDown, StoreError, Unanswered

__all__ = ["Argument", "Reply", "Store", "StoreDown", "StoreError", "Unanswered"]

log = logging.getLogger("cloudach.gateway.store")


class _Link(Protocol):
    """A connection must do this. Link does it for one server, ClusterLink for a cluster."""

    closed: asyncio.Future[str]

    def run(self, script: Script, keys: tuple[str, ...], args: Sequence[Argument]) -> asyncio.Future[Reply]: ...
    def close(self, why: str = "closed") -> None: ...
    async def wait_closed(self) -> None: ...


class Store:
    """The connection to Redis of one process and event loop. `url` is as in settings.Redis.

    `scripts` are loaded on every connect. `up` is True while Redis is in use, and the `on_change` callbacks are called
    whenever that changes. `reached` is set once Redis was up for the first time. Raises ValueError for a URL that
    cannot be used.
    """

    def __init__(
        self, url: str, scripts: Sequence[Script], *, timeout_s: float = 0.5, probe_every_s: float = 1.0
    ) -> None:
        self.address = redis_address.parse(url)
        self.address.ssl_context()  # a bad certificate is a mistake, not an outage
        self.timeout_s = timeout_s
        self.probe_every_s = probe_every_s
        self.on_change: list[Callable[[bool], None]] = []
        self.reached = asyncio.Event()
        self._scripts = tuple(scripts)
        self._link: _Link | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self._link is not None and not self._link.closed.done()

    async def start(self) -> None:
        """Tries to connect once, then goes on trying in the background: a gateway may start without its Redis."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep(), name="store-keeper")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._link is not None:
            self._link.close()
            await self._link.wait_closed()

    async def run(
        self,
        script: Script,
        keys: tuple[str, ...],
        args: Sequence[Argument],
        *,
        orphan: Callable[[Reply], None] | None = None,
    ) -> Reply:
        """Runs a script. Raises StoreDown when Redis is away, and StoreError for a defect.

        The StoreDown is Unanswered if the script may have done its work. If the caller is cancelled while it waits,
        `orphan` gets the reply, because the script may have done its work then, too.
        """
        link = self._link
        if link is None or link.closed.done():
            raise StoreDown("Redis is not reachable")
        future = link.run(script, keys, args)
        try:
            return await (future if orphan is None else asyncio.shield(future))
        except StoreDown as error:
            link.close(str(error))
            raise Unanswered(str(error)) from error
        except StoreError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        except asyncio.CancelledError:
            if orphan is not None:
                future.add_done_callback(partial(_deliver, orphan))
            raise
        return await self._evaluate(link, script, keys, args)

    async def _evaluate(self, link: _Link, script: Script, keys: tuple[str, ...], args: Sequence[Argument]) -> Reply:
        """Sends the script itself, which loads it again. Redis has forgotten it after a restart or a SCRIPT FLUSH."""
        if not isinstance(link, Link):
            raise StoreDown("the script is not loaded")
        try:
            return await link.send(pack(b"EVAL", script.source, len(keys), *keys, *args))
        except StoreDown as error:
            raise Unanswered(str(error)) from error

    async def _connect(self) -> bool:
        try:
            if self.address.kind == "cluster":
                self._link = await cluster_redis.open_cluster(self.address, self._scripts, self.timeout_s)
            elif self.address.kind == "sentinel":
                node = await sentinel_redis.find_master(self.address, self.timeout_s)
                self._link = await open_link(self.address, node, self._scripts, self.timeout_s)
            else:
                self._link = await open_link(self.address, None, self._scripts, self.timeout_s)
        except StoreDown as error:
            if self._keeper is None:
                log.error("Redis is not reachable yet: %s", error)
                self._call_listeners(False)
            return False
        log.info("Redis is connected: %s", self.address.where)
        self.reached.set()
        self._call_listeners(True)
        return True

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            link = self._link
            if link is not None and not link.closed.done():
                since = loop.time()
                why = await asyncio.shield(link.closed)
                log.error("Redis is lost, going on without it: %s", why)
                self._call_listeners(False)
                if loop.time() - since < self.probe_every_s:  # it comes and goes, so do not spin
                    await asyncio.sleep(self.probe_every_s)
            if not await self._connect():
                await asyncio.sleep(self.probe_every_s)

    def _call_listeners(self, up: bool) -> None:
        for callback in self.on_change:
            callback(up)


def _deliver(orphan: Callable[[Reply], None], future: asyncio.Future[Reply]) -> None:
    if not future.cancelled() and future.exception() is None:
        orphan(future.result())
