"""Events on Models. The same event again raises its count; what cannot be written is logged and forgotten."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, Literal

from cloudach_model_api.names import API_VERSION, KIND, MANAGER
from cloudach_model_api.status import rfc3339

from .client import EVENTS, KubeClient
from .errors import Conflict, KubeError, NotFound

log = logging.getLogger(__name__)

_REMEMBERED = 1000


class Events:
    def __init__(self, api: KubeClient, *, instance: str) -> None:
        self._api = api
        self._instance = instance
        self._counts: OrderedDict[str, int] = OrderedDict()

    async def tell(self, model: dict[str, Any], kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        meta = model["metadata"]
        namespace = meta["namespace"]
        digest = hashlib.sha256(f"{meta['uid']}|{reason}|{message}".encode()).hexdigest()[:12]
        name = f"{meta['name']}.{digest}"
        now = rfc3339(datetime.now(UTC))
        count = self._counts.get(name, 0) + 1
        try:
            if count > 1:
                try:
                    await self._api.merge(EVENTS, namespace, name, {"count": count, "lastTimestamp": now})
                    self._counts[name] = count
                    return
                except NotFound:
                    count = 1
            body = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": meta["name"],
                    "namespace": namespace,
                    "uid": meta["uid"],
                    "resourceVersion": meta.get("resourceVersion", ""),
                },
                "type": kind,
                "reason": reason,
                "message": message[:1000],
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": count,
                "source": {"component": MANAGER, "host": self._instance},
            }
            await self._api.create(EVENTS, namespace, body)
            self._counts[name] = count
        except Conflict:
            self._counts[name] = 1  # of a controller before us; the next time it is counted up
        except KubeError as error:
            log.warning("event not written", extra={"model": f"{namespace}/{meta['name']}", "error": str(error)})
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
