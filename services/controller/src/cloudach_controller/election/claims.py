"""One release's controller works on a namespace: the one whose name stands in the namespace's Lease.

Two that worked on the same Models would undo each other's work without end. All controllers of a release share one
name, that of their Lease. So an upgrade, another leader or a renamed release changes nothing. A release that is gone
renews no Lease, and then another one takes over its namespaces.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from cloudach_kube.errors import KubeError, NotFound, Refused, is_refusal

from .. import metrics
from ..settings import LeaderElection
from .lease import Api, Lease

log = logging.getLogger(__name__)

LEASE = "cloudach-models"
_DURATION_S = 120
_RENEW_S = 30.0
_RETRY_S = 1.0
_PATIENCE_S = 15.0
"""An admission webhook that fails for Leases must not keep a namespace's Models waiting for longer."""


class Claims:
    """`won` is called with a namespace that is ours now and was another release's."""

    def __init__(
        self,
        api: Api,
        election: LeaderElection,
        won: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._enabled = election.enabled  # a controller without a Lease has no name, and works alone
        self._identity = f"{election.namespace}/{election.name}"
        self._won = won
        self._clock = clock
        self._leases: dict[str, Lease] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._holders: dict[str, str] = {}  # by namespace, as far as it is known
        self._unasked: set[str] = set()  # namespaces where we may not ask
        self._failing: dict[str, float] = {}  # namespaces where the API server fails, and since when

    @property
    def notes(self) -> str:
        """Returns one line for each namespace whose Models another release's controller works on."""
        return "\n".join(
            f"namespace {namespace} is left alone: the controller {holder} works on its Models"
            for namespace, holder in sorted(self._holders.items())
            if holder != self._identity
        )

    async def is_ours(self, namespace: str) -> bool | None:
        """Tells if this release works on the namespace's Models; None while that is not known yet.

        The API server is asked only until the answer is known. Raises nothing.
        """
        if not self._enabled:
            return True
        if namespace not in self._holders:
            async with self._locks.setdefault(namespace, asyncio.Lock()):
                if namespace not in self._holders:
                    await self._try(namespace)
        holder = self._holders.get(namespace)
        return holder == self._identity if holder is not None else None

    async def keep(self, pause_s: float = _RENEW_S) -> None:
        """Runs until it is cancelled. It renews our Leases, and looks whether others still renew theirs."""
        while True:
            await asyncio.sleep(pause_s)
            for namespace in list(self._holders):
                await self._try(namespace)

    async def _try(self, namespace: str) -> None:
        lease = self._leases.setdefault(
            namespace,
            Lease(
                self._api,
                namespace,
                LEASE,
                self._identity,
                duration_s=_DURATION_S,
                renew_s=_RENEW_S,
                retry_s=_RETRY_S,
                clock=self._clock,
            ),
        )
        before = self._holders.get(namespace)
        try:
            holder = await lease.attempt()
        except (Refused, NotFound) as error:  # a right is missing, or the namespace is going
            self._wonder(namespace, error)
            holder = self._identity
        except KubeError as error:
            log.info(
                "the Lease of a namespace could not be asked for", extra={"namespace": namespace, "error": str(error)}
            )
            if before is not None or not is_refusal(error):
                return
            if self._clock() - self._failing.setdefault(namespace, self._clock()) < _PATIENCE_S:
                return
            self._wonder(namespace, error)
            holder = self._identity
        else:
            self._failing.pop(namespace, None)
        if holder is None:  # somebody was faster; the next try tells who
            return
        self._holders[namespace] = holder
        ours = holder == self._identity
        metrics.FOREIGN.labels(namespace).set(not ours)
        if not ours and before != holder:
            log.error(
                "another controller works on the Models of a namespace",
                extra={"namespace": namespace, "holder": holder},
            )
        if ours and before not in (None, self._identity):
            log.info("namespace taken over from another controller", extra={"namespace": namespace, "before": before})
            self._won(namespace)

    def _wonder(self, namespace: str, error: KubeError) -> None:
        if namespace not in self._unasked:
            self._unasked.add(namespace)
            extra = {"namespace": namespace, "error": str(error)}
            log.warning("nothing tells which controller works on the Models of a namespace", extra=extra)
