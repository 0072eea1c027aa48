"""A PodDisruptionBudget says how many of a Model's pods may be evicted at a time, as when nodes are drained. Pure.

A budget counts pods that are ready. A pod of ours is ready as soon as any replica of its cluster is. It counts while
its own replica loads weights, and where the Model has no replica to spare. So the number follows the replicas that
answer: one pod may go at a time, and none while a replica is missing.

It is a plain number, because Kubernetes finds no owner with a scale for pods of a RayCluster. With `maxUnavailable` or
a percentage it would refuse every eviction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cloudach_model_api.model import Model
from cloudach_model_api.names import LABEL_MANAGED_BY, LABEL_MODEL, MANAGER
from cloudach_model_api.use import owner

_WORKER = {"ray.io/node-type": "worker"}


def budget_name(model: Model) -> str:
    """The part after the dot, which no Model's name has, keeps the names of two Models' budgets apart."""
    return f"{model.metadata.name}.replicas"


def budget(
    model: Model, *, desired: int, ready: int, pods: Iterable[Mapping[str, Any]], running: int = 0
) -> dict[str, Any] | None:
    """Returns None if nothing is worth protecting. `desired` and `ready` count replicas. `pods` are all of the Model's.

    `running` counts replicas that are up, though nobody may reach them yet. Right after a replacement that is all of
    them, and streams still run on the pods from before.

    The pods of two clusters count together, because the budget cannot tell them apart.
    """
    if desired < 2 or not (ready or running):
        return None
    healthy = max(desired * pods_per_replica(model), sum(map(_is_healthy, pods)))
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": budget_name(model),
            "namespace": model.metadata.namespace,
            "labels": {LABEL_MODEL: model.metadata.name, LABEL_MANAGED_BY: MANAGER},
            "ownerReferences": [owner(model)],
        },
        "spec": {
            "minAvailable": healthy - 1 if ready >= desired else healthy,
            "selector": {"matchLabels": {LABEL_MODEL: model.metadata.name, **_WORKER}},
        },
    }


def pods_per_replica(model: Model) -> int:
    gpus = model.spec.gpus_per_replica
    return max(gpus // model.spec.gpu.count_per_pod, 1) if gpus else 1


def _is_healthy(pod: Mapping[str, Any]) -> bool:
    """Tells if Kubernetes counts the pod."""
    meta, status = pod["metadata"], pod.get("status") or {}
    if meta.get("deletionTimestamp") or not _WORKER.items() <= (meta.get("labels") or {}).items():
        return False
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or [])
