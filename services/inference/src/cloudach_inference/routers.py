"""Request routers for Ray Serve LLM's direct streaming are defined here. Only Ray's own processes import this.

RayServices of running Models name this module by its path, so it stays where it is.

Ray 2.60's PrefixCacheAffinityRouter does not work there. It learns from `on_request_routed`, which is never called when
HAProxy sends the request, so all requests come to one replica. A request whose prompt is token ids gets 503, and such a
request continues a broken stream.
"""

from __future__ import annotations

import time
from typing import Any

from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve._private.request_router.request_router import FIFOMixin, RequestRouter

from .replica.affinity import Affinity, blocks


class PrefixAware(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """Chooses the replica that has seen the same beginning: see `affinity`."""

    def initialize_state(self, **_: Any) -> None:
        self._affinity = Affinity(time.monotonic)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        self._affinity.keep(replica.replica_id.unique_id for replica in replicas)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if not candidate_replicas:
            return []
        body: dict[str, Any] = {}
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # else it is asked again at once when all are full
            # An exception here would leave the request waiting for ever.
            body = getattr(pending_request.args[0], "__dict__", {}) if pending_request.args else {}
        there = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        return [[there[name]] for name in self._affinity.choose(list(blocks(body)), list(there))]
