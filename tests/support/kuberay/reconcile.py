"""One reconciliation of a RayService, as `rayservice_controller.go` of KubeRay's main branch does it. No I/O.

The functions' names in comments are those of that file. Left out: the incremental upgrade and the timeout for the
first start, which Cloudach does not use.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .world import RayCluster, Steering, suffix

_DELETION_DELAY_S = 60.0


class ShutOut(Exception):
    """A dashboard does not answer. Reconcile ends there, and the status stays as it is."""


@dataclass
class Memory:
    """What the operator keeps for itself, and loses when it is restarted."""

    serve_configs: dict[str, str] = field(default_factory=dict)
    """By RayCluster: the text of serveConfigV2 that it was given last."""
    delete_at: dict[str, float] = field(default_factory=dict)
    """By RayCluster: when a dropped one goes."""


@dataclass
class Outcome:
    status: dict[str, Any]
    create: str = ""
    """A RayCluster to be made of the RayService as it is now."""
    delete: list[str] = field(default_factory=list)
    """RayClusters whose delay is over."""
    put: str = ""
    """The RayCluster that gets serveConfigV2."""
    point_to: str = ""
    """The RayCluster that the serve and the head service lead to from now on."""


def reconcile(
    service: dict[str, Any],
    clusters: dict[str, RayCluster],
    memory: Memory,
    steering: Steering,
    *,
    points_to: str,
    now: float,
) -> Outcome:
    """`clusters`: those of this RayService. `points_to`: where its services lead so far; empty: there are none.

    Raises ShutOut.
    """
    spec = service["spec"]
    outcome = Outcome(copy.deepcopy(service.get("status") or {}))
    status = outcome.status
    active_name, pending_name = _name(status, "active"), _name(status, "pending")
    outcome.delete = _dangling(spec, clusters, {active_name, pending_name}, memory, now)
    active, pending = clusters.get(active_name), clusters.get(pending_name)
    if pending_name and pending is None:  # reconcileRayCluster makes it, and there is nothing to ask of it yet
        outcome.create = pending_name
        return outcome

    ready = {"active": False, "pending": False}
    told: dict[str, dict[str, Any]] = {"active": {}, "pending": {}}
    if pending is not None:
        ready["pending"], told["pending"] = _serve(spec, pending, memory, steering, outcome)
    if active is not None and pending is None and _same(spec, active):
        # While a second cluster is on its way the first one gets nothing, and its applications are not told.
        ready["active"], told["active"] = _serve(spec, active, memory, steering, outcome)

    # reconcileServicesToReadyCluster
    if ready["pending"] or ready["active"]:
        target = pending if ready["pending"] else active
        assert target is not None
        if target.name != points_to:
            outcome.point_to = points_to = target.name
    _status(service, status, active, pending, told, points_to if ready["pending"] or ready["active"] else "")
    serving = bool(points_to) and points_to == pending_name and ready["pending"]
    if not serving and _prepares(spec, active, pending):
        status["pendingServiceStatus"] = {"rayClusterName": f"{service['metadata']['name']}-{suffix()}"}
    endpoints = len(clusters[points_to].endpoints) if points_to in clusters else 0
    status.pop("numServeEndpoints", None)
    if endpoints:  # `omitempty`: zero is not written
        status["numServeEndpoints"] = endpoints
    set_conditions(status, service["metadata"]["generation"], endpoints)
    return outcome


def differs(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """InconsistentRayServiceStatuses in consistency.go.

    A new observedGeneration or rayClusterStatus alone is not written. The generation reaches the status by the
    conditions, which hold it, too; before there is an active cluster nothing sets them anew.
    """

    def relevant(status: dict[str, Any]) -> Any:
        parts = [status.get(f"{part}ServiceStatus") or {} for part in ("active", "pending")]
        return [
            status.get("serviceStatus"),
            status.get("numServeEndpoints"),
            status.get("conditions"),
            *((part.get("rayClusterName"), part.get("applicationStatuses") or {}) for part in parts),
        ]

    return bool(relevant(old) != relevant(new))


def _name(status: dict[str, Any], part: str) -> str:
    return str((status.get(f"{part}ServiceStatus") or {}).get("rayClusterName") or "")


def _dangling(
    spec: dict[str, Any], clusters: dict[str, RayCluster], kept: set[str], memory: Memory, now: float
) -> list[str]:
    """cleanUpRayClusterInstance: the delay is read when a cluster is first seen dropped; it may never have served."""
    delay = spec.get("rayClusterDeletionDelaySeconds")
    gone = []
    for name in clusters:
        if name in kept:
            continue
        if name not in memory.delete_at:
            memory.delete_at[name] = now + (_DELETION_DELAY_S if delay is None else delay)
        elif now > memory.delete_at[name]:
            gone.append(name)
    for name in [name for name in memory.serve_configs if name in clusters and name not in kept]:
        del memory.serve_configs[name]  # cleanUpServeConfigCache
    return gone


def _serve(
    spec: dict[str, Any], cluster: RayCluster, memory: Memory, steering: Steering, outcome: Outcome
) -> tuple[bool, dict[str, Any]]:
    """reconcileServe: nothing while the head pod is not ready. Raises ShutOut."""
    if not cluster.head_ready:
        return False, {}
    if cluster.name in steering.shut_out or cluster.service in steering.shut_out:
        raise ShutOut
    applications = cluster.applications(steering)["applications"]
    # checkIfNeedSubmitServeApplications: also after a restart of the operator, and after a head that lost them.
    if not applications or memory.serve_configs.get(cluster.name) != spec["serveConfigV2"]:
        if not json.loads(spec["serveConfigV2"]).get("applications"):
            raise ShutOut  # Ray's ServeDeploySchema requires them: the dashboard refuses it, and KubeRay tries again
        outcome.put = cluster.name
    told = {}
    for name, app in applications.items():
        deployments = {
            deployment: {"status": one["status"], "message": one["message"]}
            for deployment, one in app["deployments"].items()
        }
        told[name] = {"status": app["status"], "message": app["message"], "serveDeploymentStatuses": deployments}
    return bool(told) and all(app["status"] == "RUNNING" for app in told.values()), told


def _status(
    service: dict[str, Any],
    status: dict[str, Any],
    active: RayCluster | None,
    pending: RayCluster | None,
    told: dict[str, dict[str, Any]],
    points_to: str,
) -> None:
    """calculateStatus and reconcilePromotionAndServingStatus."""
    status["observedGeneration"] = service["metadata"]["generation"]
    for part, cluster in (("active", active), ("pending", pending)):
        held = {name: value for name, value in (status.get(f"{part}ServiceStatus") or {}).items() if value}
        held.pop("applicationStatuses", None)
        held["rayClusterStatus"] = cluster.status() if cluster is not None else {}
        if told[part]:
            held["applicationStatuses"] = told[part]
        status[f"{part}ServiceStatus"] = held
    if points_to and _name(status, "active") != points_to:
        status["activeServiceStatus"] = status["pendingServiceStatus"]
        status["pendingServiceStatus"] = {"rayClusterStatus": {}}


def _prepares(spec: dict[str, Any], active: RayCluster | None, pending: RayCluster | None) -> bool:
    """shouldPrepareNewCluster: the text of the first cluster alone takes no second one back; it makes a third.

    `upgradeStrategy: None` (isZeroDowntimeUpgradeEnabled) lets none be made, and drops none either.
    """
    if active is None and pending is None:
        return True
    cluster = pending or active
    assert cluster is not None
    return not _same(spec, cluster) and (spec.get("upgradeStrategy") or {}).get("type", "NewCluster") == "NewCluster"


def _same(spec: dict[str, Any], cluster: RayCluster) -> bool:
    """isClusterSpecHashEqual, also the partial one: worker groups that are added at the end replace no cluster."""
    wanted = copy.deepcopy(spec["rayClusterConfig"])
    groups = cluster.config.get("workerGroupSpecs") or []
    wanted["workerGroupSpecs"] = (wanted.get("workerGroupSpecs") or [])[: len(groups)]
    return _muted(wanted) == _muted(cluster.config)


def _muted(config: dict[str, Any]) -> str:
    """generateHashWithoutReplicasAndWorkersToDelete: what changes without a new cluster.

    It hashes Go's types, to which an empty struct and one that is missing are the same.
    """
    config = copy.deepcopy(config)
    for group in config.get("workerGroupSpecs") or []:
        for name in ("replicas", "minReplicas", "maxReplicas"):
            group.pop(name, None)
        (group.get("scaleStrategy") or {}).pop("workersToDelete", None)
    for group in [config["headGroupSpec"], *(config.get("workerGroupSpecs") or [])]:
        for name in ("tolerations", "schedulingGates"):
            group["template"]["spec"].pop(name, None)
    return json.dumps(as_go_has_it(config), sort_keys=True)


def as_go_has_it(value: Any) -> Any:
    """Without what is empty, and without the defaults of the published CRD, which the tests' CRD does not fill in."""
    if isinstance(value, dict):
        found = {name: as_go_has_it(each) for name, each in value.items() if (name, each) != ("numOfHosts", 1)}
        return {name: each for name, each in found.items() if each not in (None, {}, [])}
    if isinstance(value, list):
        return [as_go_has_it(each) for each in value]
    return value


def set_conditions(status: dict[str, Any], generation: int, endpoints: int) -> None:
    """Sets the conditions of a RayService's status, as KubeRay's `calculateConditions` does."""
    if not status.get("conditions"):
        for kind in ("Ready", "UpgradeInProgress"):
            _set(status, generation, kind, "False", "Initializing", "RayService is initializing")
    ready = next(one for one in status["conditions"] if one["type"] == "Ready")
    if endpoints:
        words = "Number of serve endpoints is greater than 0"
        _set(status, generation, "Ready", "True", "NonZeroServeEndpoints", words)
    elif ready["status"] == "True":
        words = "Number of serve endpoints dropped to 0"
        _set(status, generation, "Ready", "False", "ZeroServeEndpoints", words)
    active, pending = _name(status, "active"), _name(status, "pending")
    if active and pending:
        words = "Both active and pending Ray clusters exist"
        _set(status, generation, "UpgradeInProgress", "True", "BothActivePendingClustersExist", words)
    elif active:
        words = "Active Ray cluster exists and no pending Ray cluster"
        _set(status, generation, "UpgradeInProgress", "False", "NoPendingCluster", words)
    running = any(one["type"] == "Ready" and one["status"] == "True" for one in status["conditions"])
    status["serviceStatus"] = "Running" if running else ""


def _set(status: dict[str, Any], generation: int, kind: str, holds: str, reason: str, message: str) -> None:
    conditions = [one for one in status.get("conditions") or [] if one["type"] != kind]
    old = next((one for one in status.get("conditions") or [] if one["type"] == kind), None)
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if old is not None and old["status"] == holds:
        since = old["lastTransitionTime"]
    new = {
        "type": kind,
        "status": holds,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }
    status["conditions"] = sorted([*conditions, new], key=lambda one: str(one["type"]))
