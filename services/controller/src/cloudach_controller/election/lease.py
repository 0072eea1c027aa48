"""A Lease lets one of several controllers work: the one whose name stands in it, as in client-go's leader election."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from cloudach_kube.errors import Conflict, KubeError, NotFound
from cloudach_kube.kinds import LEASES, Kind

log = logging.getLogger(__name__)

_RELEASE_TRIES = 5


class LostLease(Exception):
    """Another controller may work now, so we stop at once."""


class Api(Protocol):
    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]: ...
    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]: ...
    async def replace(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]: ...


def _monotonic() -> float:
    return asyncio.get_running_loop().time()


class Lease:
    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration_s: int,
        renew_s: float,
        retry_s: float,
        reached: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = _monotonic,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration_s = duration_s
        self._renew_s = renew_s
        self._retry_s = retry_s
        self._reached = reached  # called whenever the API server has answered
        self._clock = clock
        self._seen: tuple[Any, ...] = ()
        self._seen_at = 0.0
        self.held = False  # set as soon as we may hold it, because a cancelled write may have reached the API server

    async def acquire(self) -> None:
        """Returns when we lead."""
        told = None
        while True:
            holder = await self._try()
            if holder == self._identity:
                log.info("leading", extra={"lease": self._name, "identity": self._identity})
                return
            if holder != told:
                log.info("waiting for the lease", extra={"lease": self._name, "holder": holder})
                told = holder
            await self._pause()

    async def keep(self) -> None:
        """Renews the Lease until it is cancelled. Raises LostLease."""
        renewed = self._clock()
        while True:
            await self._pause()
            try:
                async with asyncio.timeout(max(self._renew_s - (self._clock() - renewed), 0.1)):
                    holder = await self._try()
            except TimeoutError:
                holder = None
            if holder == self._identity:
                renewed = self._clock()
            elif holder is not None:
                self.held = False
                raise LostLease(f"{holder} holds the Lease now")
            if self._clock() - renewed >= self._renew_s:
                self.held = False
                raise LostLease(f"the Lease could not be renewed for {self._renew_s:g} s")

    async def release(self) -> None:
        """Gives the Lease back, so that the next controller need not wait. Otherwise it runs out by itself."""
        self.held = False
        for left in reversed(range(_RELEASE_TRIES)):
            try:
                found = await self._api.get(LEASES, self._namespace, self._name)
                if found["spec"].get("holderIdentity") == self._identity:
                    found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                    await self._api.replace(LEASES, self._namespace, self._name, found)
                return
            except Conflict as error:  # a renewal of ours that was cancelled came through meanwhile
                if not left:
                    log.warning("the lease could not be given back", extra={"error": str(error)})
            except KubeError as error:
                log.warning("the lease could not be given back", extra={"error": str(error)})
                return

    async def _try(self) -> str | None:
        """Tries once, and returns who holds the Lease then. None means that nobody knows."""
        try:
            return await self.attempt()
        except KubeError as error:
            log.warning("the lease could not be asked for", extra={"error": str(error)})
            return None

    async def attempt(self) -> str | None:
        """Tries once, and returns who holds the Lease then. Raises KubeError.

        None means that somebody was faster, and the next look says who.
        """
        try:
            try:
                found = await self._api.get(LEASES, self._namespace, self._name)
            except NotFound:
                body = {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self._name, "namespace": self._namespace},
                    "spec": self._spec({}),
                }
                self.held = True
                await self._api.create(LEASES, self._namespace, body)
                return self._identity
            self._reached()
            spec = found.get("spec") or {}
            holder = spec.get("holderIdentity") or ""
            if holder not in ("", self._identity) and not self._stale(spec):
                return str(holder)
            found["spec"] = self._spec(spec)
            self.held = True
            await self._api.replace(LEASES, self._namespace, self._name, found)
            return self._identity
        except Conflict:
            return None

    def _stale(self, spec: dict[str, Any]) -> bool:
        """Tells if nobody has renewed the Lease in time. Our own clock alone decides, because clocks of several
        nodes differ.
        """
        mark = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if mark != self._seen:
            self._seen, self._seen_at = mark, self._clock()
            return False
        return self._clock() - self._seen_at > float(spec.get("leaseDurationSeconds") or self._duration_s)

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = _now()
        same = old.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._duration_s,
            "acquireTime": old.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if same or not old else 1),
        }

    async def _pause(self) -> None:
        await asyncio.sleep(self._retry_s * random.uniform(0.9, 1.1))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
