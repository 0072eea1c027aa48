"""All Models of a namespace may share one token of Ray. It lies in a Secret, and is made where it is missing."""

from __future__ import annotations

import logging
import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cloudach_kube.errors import Conflict
from cloudach_kube.kinds import SECRETS, Kind
from cloudach_model_api.names import LABEL_MANAGED_BY, MANAGER

from ..key import Key

log = logging.getLogger(__name__)

_ENTRY = "auth_token"
_BYTES = 32


class Api(Protocol):
    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]: ...


class RayToken:
    """`held` are the Secrets as last seen. `unseen` tells if we lack the right to watch those of a namespace.

    A Secret that is deleted comes back with the same token, because the pods that run know no other.
    """

    def __init__(
        self, api: Api, name: str, held: Mapping[Key, dict[str, Any]], *, unseen: Callable[[str], bool]
    ) -> None:
        self._api = api
        self._name = name
        self._held = held
        self._unseen = unseen
        self._known: dict[str, str] = {}  # by namespace, as the Secret has it

    def seen(self, key: Key, secret: Mapping[str, Any]) -> None:
        """Is called whenever the watch shows a Secret, also when it was deleted."""
        value = (secret.get("data") or {}).get(_ENTRY)
        if value:
            self._known[key[0]] = value

    async def keep(self, namespace: str, *, for_new_pods: bool) -> None:
        """Raises KubeError."""
        unseen = self._unseen(namespace)
        if (namespace, self._name) in self._held or (unseen and not for_new_pods):
            return
        metadata = {"name": self._name, "namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGER}}
        known = self._known.get(namespace)
        value = known or b64encode(secrets.token_hex(_BYTES).encode()).decode()
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {_ENTRY: value}}
        try:
            await self._api.create(SECRETS, namespace, body)
        except Conflict:
            return  # it is there already
        self._known[namespace] = value
        extra = {"namespace": namespace, "secret": self._name}
        log.info("Ray's token is made again" if known else "Ray's token is made", extra=extra)
