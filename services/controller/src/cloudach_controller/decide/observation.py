"""These values hold what was seen of a Model's pods and replicas. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..resources import engine, ray_tokens

_SERVICE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_GONE = ("STOPPING", "DRAINING", "PENDING_MIGRATION")


@dataclass(frozen=True, slots=True)
class Replicas:
    """This is what Ray's dashboard says of the deployment."""

    target: int
    ready: int
    starting: int
    leaving: int
    application: str
    """It is RUNNING, DEPLOYING, DEPLOY_FAILED, UNHEALTHY, NOT_STARTED or DELETING."""
    deployment: str
    """It is HEALTHY, UPDATING, UPSCALING, DOWNSCALING, UNHEALTHY or DEPLOY_FAILED."""
    message: str
    adapters: frozenset[str] | None = None
    """These LoRA adapters are in the configuration that Serve got last. None means that Ray was not asked."""

    app: Mapping[str, Any] | None = None
    """This is the application as Serve got it. None means that Serve has none."""

    building: bool = False
    """Serve reads a new configuration, and shows no replica meanwhile. The replicas that it had run on."""

    @property
    def settled(self) -> bool:
        """Tells if every replica runs with the last configuration."""
        return self.application == "RUNNING" and self.deployment == "HEALTHY"

    @property
    def total(self) -> int:
        return self.ready + self.starting + self.leaving


@dataclass(frozen=True, slots=True)
class Observation:
    ray_service: dict[str, Any] | None
    pods: tuple[dict[str, Any], ...]
    """These pods count: see `pods_that_count`."""
    replicas: Replicas | None
    """None means that the dashboard does not answer, or that there is none yet."""
    unreachable: str = ""
    """This says what the dashboard did instead of answering; empty if it answered, or if there should be none."""
    engine_log: str = ""
    """This is the end of the log of a container that crashed."""
    crashed_in: str = ""
    """The container that crashed belongs to this RayCluster."""
    kuberay_missing: bool = False
    foreign: str = ""
    """This says whose the RayService is, if somebody else has one of the Model's name."""
    refused: str = ""
    """The API server said this when it refused the RayService."""
    exposed: str = ""
    """The API server said this when it refused a network policy of a Model that runs."""
    vanished: bool = False
    """Somebody has deleted the RayService."""
    contested: bool = False
    """Somebody changes the RayService again and again."""
    behind: str = ""
    """This says why the serving cluster could not get its counts while another one is to replace it."""


def pods_that_count(
    ray_service: Mapping[str, Any] | None, pods: Iterable[dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """Returns the pods of the active cluster first, then those of the pending one.

    A dropped cluster's pods stay for `rayClusterDeletionDelaySeconds`, with the Model's label. What fails in them is no
    longer the Model's trouble. Pods of the Job that empties the store of GCS fault tolerance do not count either.
    """
    clusters = [name for name in (_part(ray_service, "active"), _part(ray_service, "pending")) if name]
    found = [pod for pod in pods if cluster_of(pod) in clusters and _label(pod, "ray.io/node-type") != "redis-cleanup"]
    return tuple(sorted(found, key=lambda pod: clusters.index(cluster_of(pod))))


def cluster_of(pod: Mapping[str, Any]) -> str:
    """Returns the name of the pod's RayCluster."""
    return _label(pod, "ray.io/cluster")


def _label(pod: Mapping[str, Any], name: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(name) or "")


def of_the_active_cluster(seen: Observation) -> Observation:
    """Returns the observation without what is wrong in a second, pending cluster. If only the pending one exists, all
    of it is returned.
    """
    active = _part(seen.ray_service, "active")
    if not active or seen.ray_service is None:
        return seen
    status = {name: value for name, value in seen.ray_service["status"].items() if name != "pendingServiceStatus"}
    return replace(
        seen,
        ray_service={**seen.ray_service, "status": status},
        pods=tuple(pod for pod in seen.pods if cluster_of(pod) == active),
        engine_log=seen.engine_log if seen.crashed_in in ("", active) else "",
    )


def read_replicas(answer: Mapping[str, Any], deployment: str) -> Replicas:
    """Reads the answer to `GET /api/serve/applications/`. All counts are zero while Serve does not know the
    deployment.
    """
    app = (answer.get("applications") or {}).get(engine.APPLICATION) or {}
    found = (app.get("deployments") or {}).get(deployment) or {}
    states = [str(replica.get("state", "")) for replica in found.get("replicas") or []]
    ready = states.count("RUNNING")
    leaving = sum(state in _GONE for state in states)
    return Replicas(
        target=int(found.get("target_num_replicas") or 0),
        ready=ready,
        starting=len(states) - ready - leaving,
        leaving=leaving,
        application=str(app.get("status") or "NOT_STARTED"),
        deployment=str(found.get("status") or ""),
        message="\n".join(text for text in (app.get("message"), found.get("message")) if text),
        adapters=_adapters(app),
        app=app.get("deployed_app_config") or None,
        building=app.get("status") == "DEPLOYING" and not found,
    )


def _adapters(app: Mapping[str, Any]) -> frozenset[str]:
    lora = ((app.get("deployed_app_config") or {}).get("args") or {}).get("lora") or {}
    return frozenset(str(adapter.get("name")) for adapter in lora.get("adapters") or [])


def cluster_started(ray_service: Mapping[str, Any] | None) -> bool:
    """Tells if KubeRay has a cluster that traffic goes to."""
    return bool(_active(ray_service).get("rayClusterName"))


@dataclass(frozen=True, slots=True)
class Head:
    """This is the address of a RayCluster's head."""

    cluster: str
    service: str
    """This is the RayCluster's own service, which leads nowhere else. The RayService's service moves to another
    cluster."""
    token_secret: str = ""
    """This Secret holds the token that the head wants. It is empty if nobody knows."""


def active_head(ray_service: Mapping[str, Any] | None, pods: Iterable[Mapping[str, Any]] = ()) -> Head | None:
    """Returns the head of the cluster that traffic goes to. Names that cannot be a service's count as none.

    `pods` are those of the Model. They tell which token the head wants where the RayService does not know it.
    """
    active = _active(ray_service)
    told = str(((active.get("rayClusterStatus") or {}).get("head") or {}).get("serviceName") or "")
    name = str(active.get("rayClusterName") or "")
    return head_of(name, told=told, token_secret=ray_tokens.secret_of(ray_service, pods, name))


def head_of(cluster: str, *, told: str = "", token_secret: str = "") -> Head | None:
    """Returns the head of any RayCluster. `told` is the name that KubeRay gives its service."""
    service = f"{cluster}-head-svc"
    # KubeRay before 1.4 kept the last 50 characters of it, and put an r where no name may begin.
    if len(told) == 50 and service.endswith(told[1:]):
        service = told
    return Head(cluster, service, token_secret) if cluster and _SERVICE_NAME.fullmatch(service) else None


def replacing(ray_service: Mapping[str, Any] | None) -> bool:
    """Tells if a second cluster is to take over from the first."""
    status = (ray_service or {}).get("status") or {}
    pending = status.get("pendingServiceStatus") or {}
    return bool(pending.get("rayClusterName")) and cluster_started(ray_service)


def kuberay_says(ray_service: Mapping[str, Any] | None) -> str:
    """Returns KubeRay's messages about what went wrong."""
    status = (ray_service or {}).get("status") or {}
    found: list[str] = []
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        cluster = (status.get(part) or {}).get("rayClusterStatus") or {}
        found.append(str(cluster.get("reason") or ""))
        for condition in cluster.get("conditions") or []:
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                found.append(str(condition.get("message") or condition.get("reason") or ""))
    for condition in status.get("conditions") or []:
        failed = condition.get("reason") in ("ValidationFailed", "InitializingTimeout", "RayServiceFailed")
        if failed:
            found.append(str(condition.get("message") or ""))
    return "\n".join(dict.fromkeys(text for text in found if text))


def serve_says(ray_service: Mapping[str, Any] | None) -> str:
    """Returns Serve's messages as KubeRay passes them on. They are needed for clusters whose dashboard cannot be
    reached yet.
    """
    status = (ray_service or {}).get("status") or {}
    found: list[str] = []
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        for app in ((status.get(part) or {}).get("applicationStatuses") or {}).values():
            if app.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                found.append(str(app.get("message") or ""))
            found += [
                str(one.get("message") or "")
                for one in (app.get("serveDeploymentStatuses") or {}).values()
                if one.get("status") in ("DEPLOY_FAILED", "UNHEALTHY")
            ]
    return "\n".join(dict.fromkeys(text for text in found if text))


def _part(ray_service: Mapping[str, Any] | None, part: str) -> str:
    status = (ray_service or {}).get("status") or {}
    return str((status.get(f"{part}ServiceStatus") or {}).get("rayClusterName") or "")


def _active(ray_service: Mapping[str, Any] | None) -> dict[str, Any]:
    status = (ray_service or {}).get("status") or {}
    active: dict[str, Any] = status.get("activeServiceStatus") or {}
    return active
