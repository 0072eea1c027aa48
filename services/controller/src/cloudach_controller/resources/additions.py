"""These functions add to a cluster what this release wants beyond what its Model asks for (`cluster.py`). Pure.

None of it is compared with a cluster that runs. So none of it ever replaces one, neither after an upgrade nor when a
setting or field that it reads is changed. A cluster keeps the pods that it was made with. It gets all of this when
something that its Model asks for replaces it (`form.py`). An addition is a function here and its name in `ALL`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cloudach_model_api.keys import (
    ENGINE_KEY_FOLDER,
    ENGINE_KEY_VARIABLE,
    ENGINE_KEYS_SECRET,
    also_entry,
    key_entry,
)
from cloudach_model_api.model import Model

from ..settings import Settings
from . import gcs_store

Addition = Callable[[dict[str, Any], Model, Settings], None]
"""An addition changes the rayClusterConfig that it is given."""

_KEY_VOLUME = "engine-key"
_AFTER_DRAIN_S = 15
"""Ray has this time to end after a drain. Then Kubernetes kills what is left."""


def lock(cluster: dict[str, Any], model: Model, settings: Settings) -> None:
    """Makes the engines ask for a key. A process gets it in its environment when it begins. A folder follows the
    Secret.
    """
    if not settings.inference.engine_keys:
        return
    name = model.metadata.name
    reference = {"secretKeyRef": {"name": ENGINE_KEYS_SECRET, "key": key_entry(name)}}
    items = [{"key": key_entry(name), "path": "key"}, {"key": also_entry(name), "path": "also"}]
    # Optional, because there is a second key only while one is replaced by another.
    secret = {"secretName": ENGINE_KEYS_SECRET, "items": items, "defaultMode": 0o440, "optional": True}
    pod = worker_pod(cluster)
    main = _main(pod)
    main["env"].append({"name": ENGINE_KEY_VARIABLE, "valueFrom": reference})
    pod["volumes"].append({"name": _KEY_VOLUME, "secret": secret})
    main["volumeMounts"].append({"name": _KEY_VOLUME, "mountPath": ENGINE_KEY_FOLDER, "readOnly": True})


def drop_token(cluster: dict[str, Any], _: Model, settings: Settings) -> None:
    """Leaves the service account's token out of worker pods. The head's autoscaler needs one."""
    if not settings.inference.automount_service_account_token:
        worker_pod(cluster)["automountServiceAccountToken"] = False


def probe(cluster: dict[str, Any], _: Model, __: Settings) -> None:
    """Sets readiness probes on workers and the head. A Service soon sends requests to a worker that becomes ready,
    and soon stops when it no longer is.

    Where a readiness probe is set, KubeRay adds none. Its own would begin after 10 s and ask every 5 s. KubeRay still
    adds its liveness probe. That probe waits 10 minutes for Ray, and not for the engine. So no container ends
    because its engine takes long to start.
    """
    # HAProxy says 200 when a replica takes requests, and 503 when it is to get none.
    _main(worker_pod(cluster))["readinessProbe"] = {
        "httpGet": {"path": "/-/healthz", "port": 8000},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": 2,
    }
    # Ray's agent, as KubeRay asks it: raylet and GCS are alive. A head is given as long as there, 50 s.
    _main(head_pod(cluster))["readinessProbe"] = {
        "httpGet": {"path": "/api/healthz", "port": 52365},
        "periodSeconds": 2,
        "timeoutSeconds": 5,
        "failureThreshold": 25,
    }


def drain(cluster: dict[str, Any], model: Model, _: Settings) -> None:
    """A worker pod that is to go, as on a node that is drained, leaves its streams as long as a replica would.

    On SIGTERM `ray start`, which is process 1, drains its node, and Serve moves the replicas. Ray waits the whole time,
    also where nothing runs any more.
    """
    seconds = model.spec.drain_seconds
    pod = worker_pod(cluster)
    pod["terminationGracePeriodSeconds"] = seconds + _AFTER_DRAIN_S
    add_variables(_main(pod), {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(seconds)})


def leave_dead_pods(cluster: dict[str, Any], _: Model, __: Settings) -> None:
    """Lets HAProxy try another replica after one second when the first cannot be reached; Ray's default is five."""
    for pod in (head_pod(cluster), worker_pod(cluster)):
        add_variables(_main(pod), {"RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "1"})


def restrict_autoscaler(cluster: dict[str, Any], _: Model, settings: Settings) -> None:
    """Lets the container that KubeRay puts beside the head pass Pod Security "restricted", with requests
    that suffice.
    """
    memory = settings.inference.autoscaler_memory
    requests = {"cpu": settings.inference.autoscaler_cpu, "memory": memory}
    cluster["autoscalerOptions"] |= {
        "resources": {"requests": requests, "limits": {"memory": memory}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def keep_state(cluster: dict[str, Any], model: Model, settings: Settings) -> None:
    """Lets a head that is lost and made anew find what Ray knew. Meanwhile its engines go on serving."""
    store = settings.gcs_store
    if store.address is not None and store.new_clusters and settings.ray.gcs_redis_address is None:
        cluster["gcsFaultToleranceOptions"] = gcs_store.options(model, store.address)


def lock_ray(cluster: dict[str, Any], token_secret: str) -> None:
    """Locks Ray with a token of the Model's own. It is not in `ALL`, because only the run time knows the
    Secret's name.
    """
    if "authOptions" in cluster:
        cluster["authOptions"]["secretName"] = token_secret


ALL: tuple[Addition, ...] = (lock, drop_token, probe, drain, leave_dead_pods, restrict_autoscaler, keep_state)


def add_variables(container: dict[str, Any], variables: Mapping[str, str]) -> None:
    """Adds variables that are not there yet. Those that are there are the operator's, from the settings."""
    there = {one["name"] for one in container["env"]}
    container["env"] += [{"name": name, "value": value} for name, value in variables.items() if name not in there]


def _main(pod: dict[str, Any]) -> dict[str, Any]:
    """Returns the container that Ray runs in."""
    container: dict[str, Any] = pod["containers"][0]
    return container


def head_pod(cluster: dict[str, Any]) -> dict[str, Any]:
    """Returns the spec of the head's pod."""
    pod: dict[str, Any] = cluster["headGroupSpec"]["template"]["spec"]
    return pod


def worker_pod(cluster: dict[str, Any]) -> dict[str, Any]:
    """Returns the spec of a worker's pod."""
    pod: dict[str, Any] = cluster["workerGroupSpecs"][0]["template"]["spec"]
    return pod


def is_locked(cluster: dict[str, Any]) -> bool:
    """Tells if the cluster's engines ask for a key."""
    groups = cluster.get("workerGroupSpecs") or [{}]
    return _has_key(groups[0].get("template") or {})


def is_key_asked_for(cluster: dict[str, Any], pods: Iterable[Mapping[str, Any]]) -> bool:
    """Tells if engines ask for a key: those of this cluster, or of an earlier one that serves until it takes over."""
    return is_locked(cluster) or any(map(_has_key, pods))


def _has_key(pod: Mapping[str, Any]) -> bool:
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return any(volume.get("name") == _KEY_VOLUME for volume in volumes)
