"""These functions read what KubeRay makes of a RayService: can its replicas be reached, and does
KubeRay keep up? Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cloudach_model_api.names import MANAGER
from cloudach_model_api.status import rfc3339

from .observation import Observation, cluster_of


def reachable(seen: Observation) -> bool:
    """Tells if a pod is ready that the serve service of the active cluster leads to.

    Its proxy leads on to every replica, so one such pod is enough. It is ready some seconds after Serve calls a replica
    RUNNING. Pods are asked first. Where none is seen, KubeRay's count of endpoints decides, which it leaves out at
    zero. A KubeRay that is too old to count leaves us to Serve's word.
    """
    active, _ = _parts(seen.ray_service)
    workers = [pod for pod in seen.pods if cluster_of(pod) == active.get("rayClusterName") and _serves(pod)]
    if workers:
        return any(_ready_since(pod) is not None for pod in workers)
    status = (seen.ray_service or {}).get("status") or {}
    counts = any(one.get("type") == "Ready" for one in status.get("conditions") or [])
    return bool(status.get("numServeEndpoints")) or not counts


@dataclass(frozen=True, slots=True)
class Behind:
    """Says that KubeRay has not acted on something yet. `words` say on what, and `since` says from when on."""

    words: str
    since: datetime | None
    """None means that the time is not known, and not long ago."""

    def __str__(self) -> str:
        return f"{self.words}, since {rfc3339(self.since)}." if self.since is not None else f"{self.words}."

    def is_late(self, now: datetime, after_s: float) -> bool:
        return self.since is not None and now - self.since >= timedelta(seconds=after_s)


def behind(seen: Observation) -> Behind | None:
    """Returns what KubeRay has not acted on yet. For a moment there is such a thing after each change."""
    if seen.ray_service is None:
        return None
    deleted = (seen.ray_service.get("metadata") or {}).get("deletionTimestamp")
    if deleted:
        return Behind("KubeRay still holds the RayService, which is being deleted", _moment(deleted))
    return next(_behind(seen, seen.ray_service), None)


def _behind(seen: Observation, ray_service: Mapping[str, Any]) -> Iterator[Behind]:
    meta, status = ray_service.get("metadata") or {}, ray_service.get("status") or {}
    active, pending = _parts(ray_service)
    if not active.get("rayClusterName") and not pending.get("rayClusterName"):
        yield Behind("KubeRay has made no cluster of the RayService", _moment(meta.get("creationTimestamp")))
    observed, generation = status.get("observedGeneration"), meta.get("generation")
    # Before a cluster is active KubeRay does not keep the number up to date; an old KubeRay never does.
    if active.get("rayClusterName") and status.get("conditions") and observed and generation and observed < generation:
        words = f"KubeRay has read generation {observed} of the RayService, but it is at generation {generation}"
        yield Behind(words, _applied_at(meta))
    cluster = pending if pending.get("rayClusterName") else active
    if cluster.get("rayClusterName") and not cluster.get("applicationStatuses"):
        for pod in seen.pods:
            if cluster_of(pod) == cluster["rayClusterName"] and _labels(pod).get("ray.io/node-type") == "head":
                since = _ready_since(pod)
                if since is not None:
                    yield Behind("The head is ready, but KubeRay reports nothing about Serve there", since)


def _parts(ray_service: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    status = (ray_service or {}).get("status") or {}
    return status.get("activeServiceStatus") or {}, status.get("pendingServiceStatus") or {}


def _serves(pod: Mapping[str, Any]) -> bool:
    return _labels(pod).get("ray.io/serve") == "true"


def _labels(pod: Mapping[str, Any]) -> dict[str, Any]:
    return pod["metadata"].get("labels") or {}


def _ready_since(pod: Mapping[str, Any]) -> datetime | None:
    """Returns None if the pod is not ready, or is ending."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            return _moment(condition.get("lastTransitionTime")) or _moment(pod["metadata"].get("creationTimestamp"))
    return None


def _applied_at(meta: Mapping[str, Any]) -> datetime | None:
    """Returns when the controller last changed the object, by the API server's clock."""
    times = [_moment(one.get("time")) for one in meta.get("managedFields") or [] if one.get("manager") == MANAGER]
    return max((time for time in times if time is not None), default=None)


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
