"""The controller writes Kubernetes events about Models. When an event occurs again, its count is raised.

An event that cannot be written is logged and forgotten.

Each controller writes events of its own, as client-go does. So it needs no right to read those of others, and a restart
neither loses one nor counts it wrongly.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from cloudach_kube.client import KubeClient
from cloudach_kube.errors import KubeError, NotFound
from cloudach_kube.kinds import EVENTS
from cloudach_model_api.names import API_VERSION, KIND, MANAGER
from cloudach_model_api.status import rfc3339

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_Same = tuple[str, str, str, str]  # the Model's uid, and kind, reason and message of the event


class Events:
    def __init__(self, api: KubeClient, *, instance: str, nanoseconds: Callable[[], int] = time.time_ns) -> None:
        self._api = api
        self._instance = instance
        self._nanoseconds = nanoseconds
        self._told: OrderedDict[_Same, tuple[str, int]] = OrderedDict()  # the event's name, and its count

    async def tell(self, model: dict[str, Any], kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        meta, message = model["metadata"], message[:1000]
        same = meta["uid"], kind, reason, message
        try:
            if same not in self._told or not await self._again(meta["namespace"], same):
                self._told[same] = await self._first(meta, kind, reason, message), 1
        except KubeError as error:
            text = {"model": f"{meta['namespace']}/{meta['name']}", "reason": reason, "error": str(error)}
            log.warning("an event could not be written", extra=text)
            return
        self._told.move_to_end(same)
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    async def _again(self, namespace: str, same: _Same) -> bool:
        """Returns False when the event has run out meanwhile, because the API server keeps them for an hour."""
        name, count = self._told[same]
        try:
            await self._api.merge(EVENTS, namespace, name, {"count": count + 1, "lastTimestamp": _now()})
        except NotFound:
            return False
        self._told[same] = name, count + 1
        return True

    async def _first(self, meta: dict[str, Any], kind: str, reason: str, message: str) -> str:
        name, now = f"{meta['name']}.{self._nanoseconds():x}", _now()
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
                "resourceVersion": meta.get("resourceVersion", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": MANAGER, "host": self._instance},
            "reportingComponent": MANAGER,
            "reportingInstance": self._instance,
        }
        await self._api.create(EVENTS, meta["namespace"], body)
        return name


def _now() -> str:
    return rfc3339(datetime.now(UTC))
