"""The composition root connects, waits for the Lease, works, and gives the Lease back."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from typing import Any

import aiohttp
from cloudach_kube.client import KubeClient
from cloudach_kube.errors import KubeError
from cloudach_kube.official import connect
from cloudach_model_api.names import MANAGER
from cloudach_service.log_level import LevelSignals

from . import health, metrics
from .act.endings import Endings
from .act.events import Events
from .act.own_tokens import OwnTokens
from .election.lease import Lease, LostLease
from .manager import Manager
from .observe.dashboard import Dashboard
from .observe.observer import Observer
from .settings import Settings

log = logging.getLogger(__name__)

_RELEASE_S = 10.0  # a pod has 30 s from SIGTERM on


async def run(settings: Settings, level: LevelSignals) -> int:
    """Returns the exit code: 0 after SIGTERM, 1 when it cannot go on and should be started anew."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    level.heed(loop)
    state = _Readiness()
    kubernetes = settings.kubernetes
    try:
        async with (
            connect(kubernetes.kubeconfig, agent=MANAGER) as transport,
            # Head services are headless: a kept connection or a remembered address would stay with a pod that has gone.
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, use_dns_cache=False)) as session,
            health.serving(settings.listen.host, settings.listen.port, state.unready, state.notes) as port,
        ):
            print(f"listening on http://{settings.listen.host}:{port}", flush=True)
            api = KubeClient(transport, manager=MANAGER, timeout_s=kubernetes.timeout_s)
            code = await _until(stop, _lead(api, session, settings, state))
            if code == 0:
                await _release_ending(api, settings)
            return code
    except (KubeError, OSError) as error:
        print(f"cloudach-controller: {error}", file=sys.stderr)
        return 1


class _Readiness:
    def __init__(self) -> None:
        self.manager: Manager | None = None
        self.standby = False

    def reached(self) -> None:
        self.standby = True

    def notes(self) -> str:
        return self.manager.notes if self.manager is not None else ""

    def unready(self) -> str:
        if self.manager is not None:
            return self.manager.unready
        return "" if self.standby else "the API server has not answered yet"


async def _release_ending(api: KubeClient, settings: Settings) -> None:
    """Releases Models whose namespace is being deleted. This pod may be the last one that can, if it goes with it."""
    namespaces = {*settings.kubernetes.namespaces, settings.leader_election.namespace}
    try:
        async with asyncio.timeout(_RELEASE_S):
            await Endings(api).let_go_of_ending(sorted(namespaces))
    except TimeoutError:
        log.warning("the API server was too slow to say which namespaces are being deleted")


async def _until(stop: asyncio.Event, work: Any) -> int:
    """Does the work until the stop comes, and returns the exit code."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        log.info("stopping")
        working.cancel()
    try:
        await working
    except asyncio.CancelledError:
        return 0
    except LostLease as error:
        log.error("lease lost", extra={"error": str(error)})
        return 1
    return 1


async def _lead(api: KubeClient, session: aiohttp.ClientSession, settings: Settings, state: _Readiness) -> None:
    """Works until it is cancelled, as soon as it holds the Lease. Raises LostLease."""
    election = settings.leader_election
    identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{secrets.token_hex(4)}"
    tokens = OwnTokens(api, settings.ray)
    observer = Observer(api, Dashboard(session, settings.ray.timeout_s), tokens, settings)
    manager = Manager(api, observer, Events(api, instance=identity), tokens, settings)
    metrics.LEADER.set(0)
    if not election.enabled:
        await _work(manager, state)
        return
    lease = Lease(
        api,
        election.namespace,
        election.name,
        identity,
        duration_s=election.duration_s,
        renew_s=election.renew_s,
        retry_s=election.retry_s,
        reached=state.reached,
    )
    try:
        await lease.acquire()
        working = asyncio.create_task(_work(manager, state))
        try:
            keeping = asyncio.create_task(lease.keep())
            done, _ = await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _cancel(working, keeping)
    finally:
        metrics.LEADER.set(0)
        if lease.held:
            # Only after our last write, because the next leader may begin at once.
            await asyncio.shield(lease.release())


async def _work(manager: Manager, state: _Readiness) -> None:
    state.manager = manager
    metrics.LEADER.set(1)
    await manager.run()


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
