"""Each Model has a user in the store of Ray's state. It is made before the Model's heads need it, and deleted after the
Model's last cluster.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

from cloudach_kube.client import KubeClient
from cloudach_kube.errors import Conflict, KubeError, NotFound, Refused
from cloudach_kube.kinds import SECRETS
from cloudach_model_api.model import Model
from cloudach_model_api.names import LABEL_MANAGED_BY, MANAGER

from .. import metrics
from ..key import Key
from ..resources.gcs_store import GCS_STORE_SECRET, Owner, owner, owner_of
from .gcs_store import StoreAway, StoreState

log = logging.getLogger(__name__)

_LABEL_NAME = "ray.io/originated-from-cr-name"
OF_RAY_SERVICES = f"{_LABEL_NAME},ray.io/originated-from-crd=RayService"
"""Selects the RayClusters on which KubeRay has written the name of a RayService, not that of a RayJob."""

_UNSEEN_S = 1800.0
"""A user outlives its Model by this time where RayClusters cannot be seen, because the right is missing."""


class Store(Protocol):
    """All methods raise StoreAway."""

    def password(self, user: str) -> str: ...
    async def state(self) -> StoreState: ...
    async def users(self) -> list[str]: ...
    async def clusters_of(self, user: str) -> frozenset[str]: ...
    async def grant(self, user: str, uids: frozenset[str]) -> None: ...
    async def remove(self, user: str) -> None: ...
    async def drop(self, uid: str) -> None: ...


def model_of(cluster: dict[str, Any]) -> Key | None:
    """Returns the Model that a RayCluster belongs to, by the name of its RayService."""
    meta = cluster["metadata"]
    name = (meta.get("labels") or {}).get(_LABEL_NAME)
    return (meta.get("namespace", ""), name) if name else None


class GcsUsers:
    """`clusters` holds RayClusters by their Models, and `held` holds Secrets. They and `models` are as last seen.

    `unseen` tells if a right is missing in a namespace; then its new clusters do without the store. `settled` tells if
    all Models of a namespace are known. Where they are not, `gone` tells if the namespace has ceased to exist.
    `changed` is called when each Model has to be looked at again.
    """

    def __init__(
        self,
        api: KubeClient,
        store: Store | None,
        *,
        clusters: Mapping[Key, Collection[dict[str, Any]]],
        models: Mapping[Key, dict[str, Any]],
        held: Mapping[Key, dict[str, Any]],
        unseen: Callable[[str], bool],
        settled: Callable[[str], bool],
        gone: Callable[[str], Awaitable[bool]],
        changed: Callable[[], None],
    ) -> None:
        self._api = api
        self._store = store
        self._clusters, self._models, self._held = clusters, models, held
        self._unseen, self._settled, self._gone, self._changed = unseen, settled, gone, changed
        self._run = ""
        self._granted: dict[Key, tuple[str, frozenset[str]]] = {}
        self._orphaned: dict[str, float] = {}  # users, and since when their Models are gone

    def usable(self, namespace: str) -> bool:
        """Tells if new clusters of this namespace may keep their state in the store."""
        return self._store is not None and not self._unseen(namespace)

    async def keep(self, key: Key, model: Model) -> None:
        """Lets the Model's heads log in. As long as nothing has changed, it sends no request. Raises KubeError."""
        if self._store is None or not self.usable(key[0]):
            return
        mine = owner(model)
        wanted = mine.uid, self._uids(key)
        if self._granted.get(key) == wanted and self._has_entry(key):
            return
        run = self._run
        if not run:  # the store is away; each Model is looked at again when it is back
            return
        try:
            before = await self._store.clusters_of(mine.user)
            await self._store.grant(mine.user, wanted[1])
            for uid in before - wanted[1]:
                await self._store.drop(uid)
            secret = self._store.password(mine.user)
        except StoreAway as error:
            self._lost(error)
            return
        # The Secret comes last, so that a head that has its password is let in.
        await self._write(key, secret)
        if self._run == run:  # a store that has begun anew meanwhile may have lost the user
            self._granted[key] = wanted

    async def watch(self, pause_s: float) -> None:
        """Runs until it is cancelled. It notices when the store is back, and deletes users of Models that are gone."""
        while self._store is not None:
            try:
                state = await self._store.state()
                metrics.GCS_STORE_UP.set(1)
                metrics.GCS_STORE_BYTES.set(state.memory_bytes)
                metrics.GCS_STORE_LIMIT_BYTES.set(state.memory_limit_bytes)
                if state.run != self._run:
                    log.info("the store of Ray's state answers", extra={"run": state.run})
                    self._run = state.run
                    self._granted.clear()
                    self._changed()
                await self._sweep(self._store)
            except StoreAway as error:
                self._lost(error)
            except KubeError as error:
                log.warning("the password of a deleted Model could not be removed", extra={"error": str(error)})
            await asyncio.sleep(pause_s)

    def _lost(self, error: StoreAway) -> None:
        metrics.GCS_STORE_UP.set(0)
        if self._run:
            log.error("the store of Ray's state does not answer", extra={"error": str(error)})
        self._run = ""
        self._granted.clear()

    def _uids(self, key: Key) -> frozenset[str]:
        return frozenset(str(one["metadata"]["uid"]) for one in self._clusters.get(key, ()))

    def _has_entry(self, key: Key) -> bool:
        return key[1] in ((self._held.get((key[0], GCS_STORE_SECRET)) or {}).get("data") or {})

    async def _write(self, key: Key, secret: str) -> None:
        namespace, name = key
        data = {name: b64encode(secret.encode()).decode()}
        held = self._held.get((namespace, GCS_STORE_SECRET)) or {}
        if (held.get("data") or {}).get(name) == data[name]:
            return
        metadata = {"name": GCS_STORE_SECRET, "namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGER}}
        try:
            try:
                await self._api.merge(SECRETS, namespace, GCS_STORE_SECRET, {"data": data})
            except NotFound:
                body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
                await self._api.create(SECRETS, namespace, body)
        except Conflict:
            raise  # two Models of a namespace made the Secret at once; the second try finds it
        except Refused as error:
            log.warning(
                "no password for the store of Ray's state could be written",
                extra={"model": "/".join(key), "error": str(error)},
            )

    async def _sweep(self, store: Store) -> None:
        """Deletes users of Models that are gone, with the keys of their clusters, once their last cluster is
        gone too.
        """
        found = {user: one for user in await store.users() if (one := owner_of(user)) is not None}
        unsettled = {one.namespace for one in found.values() if not self._settled(one.namespace)}
        gone = {namespace for namespace in unsettled if await self._gone(namespace)}
        orphans = {user: one for user, one in found.items() if one.namespace in gone or self._is_orphan(one)}
        self._orphaned = {user: self._orphaned.get(user, time.monotonic()) for user in orphans}
        for user, one in orphans.items():
            unseen = one.namespace not in gone and self._unseen(one.namespace)
            if unseen and time.monotonic() - self._orphaned[user] < _UNSEEN_S:
                continue
            for uid in await store.clusters_of(user):
                await store.drop(uid)
            await store.remove(user)
            log.info(
                "user of a deleted Model removed from the store of Ray's state",
                extra={"model": f"{one.namespace}/{one.name}"},
            )
            await self._forget_password(one)

    def _is_orphan(self, one: Owner) -> bool:
        key = one.namespace, one.name
        if not self._settled(one.namespace) or self._uids(key):
            return False
        model = self._models.get(key)
        return model is None or model["metadata"].get("uid") != one.uid

    async def _forget_password(self, one: Owner) -> None:
        if (one.namespace, one.name) in self._models or not self._has_entry((one.namespace, one.name)):
            return  # the entry belongs to another Model of this name
        try:
            await self._api.merge(SECRETS, one.namespace, GCS_STORE_SECRET, {"data": {one.name: None}})
        except NotFound:
            pass
