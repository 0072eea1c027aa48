"""Each Model has its own token of Ray. It is made from the namespace's seed, and copied to where pods and KubeRay read
it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from cloudach_kube.errors import Conflict, KubeError, NotFound, Refused, is_refusal
from cloudach_kube.kinds import SECRETS, Kind
from cloudach_model_api.model import Model
from cloudach_model_api.names import LABEL_MANAGED_BY, MANAGER

from ..key import Key
from ..resources.ray_tokens import SEED_SECRET, OwnToken, copy_of, own_token
from ..settings import Ray

log = logging.getLogger(__name__)

_ENTRY = "seed"
_BYTES = 32
_SEED_S = 60.0
"""This is the pause between two looks at a namespace's seed, which somebody may have deleted."""
_TROUBLE_S = 5.0
"""This is the pause where a failing admission webhook keeps the seed from being made."""
_COPY_S, _WANTED_S = 600.0, 10.0
"""These are the pauses between two tries to make a copy: as a rule, and while a pod waits for a Secret or the like."""


class Api(Protocol):
    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]: ...
    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]: ...


class OwnTokens:
    """All methods raise KubeError."""

    def __init__(self, api: Api, ray: Ray, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._makes = ray.token_auth and ray.token_per_model
        self._used = ray.token_auth
        self._clock = clock
        self._seeds: dict[str, str | None] = {}  # by namespace; None: there is none that we may read or make
        self._trouble: dict[str, KubeError] = {}  # what the API server said last, by namespace
        self._look_at: dict[str, float] = {}  # when the seed of a namespace is read again
        self._locks: dict[str, asyncio.Lock] = {}
        self._copies: dict[Key, tuple[str, bool, float]] = {}  # the Secret, whether it was there then, and when

    async def for_new_cluster(self, model: Model) -> OwnToken | None:
        """Returns None if a new cluster gets the token that the namespace shares."""
        return await self.of(model) if self._makes else None

    async def of(self, model: Model) -> OwnToken | None:
        """Returns None if the Model has no token of its own, or we lack the right to know it."""
        seed = await self._seed(model.metadata.namespace) if self._used else None
        return own_token(seed, model) if seed is not None else None

    async def keep(
        self, model: Model, token: OwnToken, pods: Iterable[Mapping[str, Any]], *, for_new_pods: bool
    ) -> None:
        """Makes the copy where it is missing. We cannot watch it, so it is made again now and then."""
        key, now = (model.metadata.namespace, model.metadata.name), self._clock()
        secret, there, tried_at = self._copies.get(key, ("", False, now))
        if secret == token.secret and (there or not for_new_pods):
            pause = _WANTED_S if any(map(_waits_for_configuration, pods)) else _COPY_S
            if now - tried_at < pause:
                return
        self._copies[key] = token.secret, False, now
        try:
            await self._api.create(SECRETS, key[0], copy_of(token, model))
            log.info("a Model's copy of its token of Ray is made", extra={"model": "/".join(key)})
        except Conflict:
            pass  # it is there already
        self._copies[key] = token.secret, True, now

    def forget(self, key: Key) -> None:
        self._copies.pop(key, None)

    async def _seed(self, namespace: str) -> str | None:
        async with self._locks.setdefault(namespace, asyncio.Lock()):
            now, known = self._clock(), self._seeds.get(namespace)
            if now >= self._look_at.get(namespace, now):
                self._look_at[namespace] = now + _SEED_S
                self._trouble.pop(namespace, None)
                try:
                    found = await self._read(namespace)
                except KubeError as error:
                    self._trouble[namespace] = error
                    self._look_at[namespace] = now + (_TROUBLE_S if is_refusal(error) else 0)
                else:
                    # The first seed counts. A changed one would lock us out of the clusters that run with the first.
                    known = self._seeds[namespace] = known or found
            if known is None and namespace in self._trouble:
                raise self._trouble[namespace]
        return known

    async def _read(self, namespace: str) -> str | None:
        try:
            try:
                return _seed_in(await self._api.get(SECRETS, namespace, SEED_SECRET))
            except NotFound:
                known = self._seeds.get(namespace)
                if known is None and not self._makes:
                    return None
            seed = known or secrets.token_hex(_BYTES)
            try:
                await self._api.create(SECRETS, namespace, _secret(namespace, seed))
            except Conflict:  # another controller has just made it
                return _seed_in(await self._api.get(SECRETS, namespace, SEED_SECRET))
        except Refused as error:
            extra = {"namespace": namespace, "error": str(error)}
            log.warning("Models share one token of Ray, because their seed cannot be read or made", extra=extra)
            return None
        log.info("the seed of tokens of Ray is made again" if known else "the seed of tokens of Ray is made")
        return seed


def _secret(namespace: str, seed: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SEED_SECRET, "namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGER}},
        "data": {_ENTRY: b64encode(seed.encode()).decode()},
    }


def _seed_in(secret: Mapping[str, Any]) -> str | None:
    try:
        return b64decode((secret.get("data") or {}).get(_ENTRY) or "").decode() or None
    except ValueError:
        log.error("the seed of tokens of Ray is not valid", extra={"secret": SEED_SECRET})
        return None


def _waits_for_configuration(pod: Mapping[str, Any]) -> bool:
    """Tells if a container waits for a Secret or the like that does not exist."""
    status = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    waiting = ((one.get("state") or {}).get("waiting") or {} for one in statuses)
    return any(one.get("reason") == "CreateContainerConfigError" for one in waiting)
