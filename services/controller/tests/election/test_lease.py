"""The Lease, against an API server on paper."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from cloudach_controller.election.lease import Lease, LostLease
from cloudach_kube.errors import Conflict, NotFound, Unreachable
from cloudach_kube.kinds import Kind

pytestmark = pytest.mark.usefixtures("virtual_time")


class PaperLease:
    """An API server with one Lease in it. `away`: it does not answer."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.away = False

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        if self.away:
            raise Unreachable(0, "away")
        if self.lease is None:
            raise NotFound(404, name)
        return copy.deepcopy(self.lease)

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise Conflict(409, "there")
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
        return self.lease

    async def replace(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self.lease is not None
        if self.away:
            raise Unreachable(0, "away")
        version = self.lease["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != version:
            raise Conflict(409, "somebody was faster")
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(int(version) + 1)}}
        return self.lease

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


def lease(api: PaperLease, identity: str) -> Lease:
    return Lease(api, "ns", "l", identity, duration_s=1, renew_s=0.6, retry_s=0.02)


async def test_the_second_waits_until_the_first_gives_the_lease_back() -> None:
    api = PaperLease()
    first, second = lease(api, "a"), lease(api, "b")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(1.3)  # longer than the Lease lasts without being renewed
    assert (api.holder, waiting.done()) == ("a", False)
    keeping.cancel()
    await first.release()
    await asyncio.wait_for(waiting, 5)
    assert (api.holder, second.held, first.held) == ("b", True, False)


async def test_a_lease_that_nobody_renews_is_taken() -> None:
    api = PaperLease()
    await lease(api, "a").acquire()
    await asyncio.wait_for(lease(api, "b").acquire(), 10)
    assert api.holder == "b"
    assert api.lease is not None
    assert api.lease["spec"]["leaseTransitions"] == 1


async def test_whoever_cannot_renew_stops_before_the_lease_runs_out() -> None:
    api = PaperLease()
    held = lease(api, "a")
    await held.acquire()
    api.away = True
    began = asyncio.get_running_loop().time()
    with pytest.raises(LostLease, match=r"could not be renewed for 0\.6 s"):
        await asyncio.wait_for(held.keep(), 10)
    assert asyncio.get_running_loop().time() - began < 1
    assert not held.held


async def test_only_ones_own_lease_is_given_back() -> None:
    api = PaperLease()
    held = lease(api, "a")
    await held.acquire()
    assert api.lease is not None
    api.lease["spec"]["holderIdentity"] = "b"
    await held.release()
    assert api.holder == "b"


async def test_a_renewal_that_overtakes_the_release_does_not_keep_it() -> None:
    """Cancelled here, it may still be on its way to the API server."""

    class Overtaken(PaperLease):
        overtaken = False

        async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
            found = await super().get(kind, namespace, name)
            if self.overtaken:
                self.overtaken = False
                await self.replace(kind, namespace or "", name, copy.deepcopy(found))
            return found

    api = Overtaken()
    held = lease(api, "a")
    await held.acquire()
    api.overtaken = True
    await held.release()
    assert api.holder == ""


async def test_a_lease_that_was_taken_as_the_stop_came_is_known_to_be_held() -> None:
    class Slow(PaperLease):
        """It has taken the Lease, and its answer is on its way."""

        async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
            await super().create(kind, namespace, body)
            written.set()
            await asyncio.Event().wait()
            raise AssertionError

    written = asyncio.Event()
    held = lease(Slow(), "a")
    acquiring = asyncio.create_task(held.acquire())
    await written.wait()
    acquiring.cancel()
    await asyncio.wait({acquiring})
    assert held.held
