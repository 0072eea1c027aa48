"""The controller makes the keys of Models' engines, knows them by their ids, and deletes them with their Models."""

from __future__ import annotations

import logging
import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

from cloudach_kube.client import KubeClient
from cloudach_kube.errors import NotFound, Refused
from cloudach_kube.kinds import SECRETS
from cloudach_model_api.keys import ENGINE_KEYS_SECRET, also_entry, key_entry, key_id, key_of
from cloudach_model_api.names import LABEL_MANAGED_BY, MANAGER

from ..key import Key

log = logging.getLogger(__name__)

_BYTES = 32


class EngineKeys:
    """`held` are the Secrets as last seen. `unseen` tells if we lack the right to see a namespace's Secrets; then its
    engines have no key. All methods raise KubeError.
    """

    def __init__(self, api: KubeClient, held: Mapping[Key, dict[str, Any]], *, unseen: Callable[[str], bool]) -> None:
        self._api = api
        self.unseen = unseen
        self._held = held
        self._made: dict[Key, str] = {}  # ids of keys that the watch has not told of yet

    async def keep(self, model: Key) -> str:
        """Returns the id of the Model's key, which is made where it is missing."""
        namespace, name = model
        key = key_of(self._held.get((namespace, ENGINE_KEYS_SECRET)) or {}, name)
        if key is not None:
            self._made.pop(model, None)
            return key_id(key)
        if model not in self._made:
            self._made[model] = key_id(await self._make(namespace, name))
        return self._made[model]

    async def forget(self, model: Key) -> None:
        """Deletes the engine keys of a Model that is gone, so that the next Model of this name gets another key."""
        namespace, name = model
        self._made.pop(model, None)
        if self.unseen(namespace):
            return
        held = self._held.get((namespace, ENGINE_KEYS_SECRET)) or {}
        gone = {entry: None for entry in (key_entry(name), also_entry(name)) if entry in (held.get("data") or {})}
        if gone:
            try:
                await self._api.merge(SECRETS, namespace, ENGINE_KEYS_SECRET, {"data": gone})
            except NotFound:
                pass
            except Refused as error:  # a right that is missing is no reason to keep the Model
                log.warning(
                    "the engine key of a deleted Model could not be removed",
                    extra={"model": "/".join(model), "error": str(error)},
                )

    async def _make(self, namespace: str, name: str) -> str:
        """Makes a key, but never overwrites one, because engines run with it. Raises Conflict when somebody else has
        just written the Secret.
        """
        made = secrets.token_hex(_BYTES)
        data = {key_entry(name): b64encode(made.encode()).decode()}
        try:
            there = await self._api.get(SECRETS, namespace, ENGINE_KEYS_SECRET)
        except NotFound:
            metadata: dict[str, Any] = {"name": ENGINE_KEYS_SECRET, "namespace": namespace}
            metadata["labels"] = {LABEL_MANAGED_BY: MANAGER}
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
            await self._api.create(SECRETS, namespace, body)
            return made
        old = key_of(there, name)
        if old is not None:
            return old
        version = {"resourceVersion": there["metadata"]["resourceVersion"]}
        await self._api.merge(SECRETS, namespace, ENGINE_KEYS_SECRET, {"metadata": version, "data": data})
        return made
