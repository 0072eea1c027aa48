"""What this release adds to the clusters that Models ask for (`cluster.py`). Pure.

None of it is compared with a cluster that runs, so none of it ever replaces one: neither after an upgrade, nor when a
setting or a field that it reads is changed. A cluster keeps the pods that it was made with, and gets all of this when
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

Addition = Callable[[dict[str, Any], Model, Settings], None]
"""Changes the rayClusterConfig that it is given."""

_KEY_VOLUME = "engine-key"


def lock(cluster: dict[str, Any], model: Model, settings: Settings) -> None:
    """The engines ask for a key: in the environment for a process that begins, in a folder that follows the Secret."""
    if not settings.inference.engine_keys:
        return
    name = model.metadata.name
    reference = {"secretKeyRef": {"name": ENGINE_KEYS_SECRET, "key": key_entry(name)}}
    items = [{"key": key_entry(name), "path": "key"}, {"key": also_entry(name), "path": "also"}]
    # Optional, because there is a second key only while one is replaced by another.
    secret = {"secretName": ENGINE_KEYS_SECRET, "items": items, "defaultMode": 0o440, "optional": True}
    pod = worker_pod(cluster)
    main = pod["containers"][0]
    main["env"].append({"name": ENGINE_KEY_VARIABLE, "valueFrom": reference})
    pod["volumes"].append({"name": _KEY_VOLUME, "secret": secret})
    main["volumeMounts"].append({"name": _KEY_VOLUME, "mountPath": ENGINE_KEY_FOLDER, "readOnly": True})


def drop_token(cluster: dict[str, Any], _: Model, settings: Settings) -> None:
    """Worker pods have no service account's token. The head's autoscaler needs one."""
    if not settings.inference.automount_service_account_token:
        worker_pod(cluster)["automountServiceAccountToken"] = False


ALL: tuple[Addition, ...] = (lock, drop_token)


def head_pod(cluster: dict[str, Any]) -> dict[str, Any]:
    """The spec of the head's pod."""
    pod: dict[str, Any] = cluster["headGroupSpec"]["template"]["spec"]
    return pod


def worker_pod(cluster: dict[str, Any]) -> dict[str, Any]:
    """The spec of a worker's pod."""
    pod: dict[str, Any] = cluster["workerGroupSpecs"][0]["template"]["spec"]
    return pod


def is_locked(cluster: dict[str, Any]) -> bool:
    """Whether its engines ask for a key."""
    groups = cluster.get("workerGroupSpecs") or [{}]
    return _has_key(groups[0].get("template") or {})


def is_key_asked_for(cluster: dict[str, Any], pods: Iterable[Mapping[str, Any]]) -> bool:
    """Whether engines of this cluster ask for a key, or those of one before it, which serve until it has taken over."""
    return is_locked(cluster) or any(map(_has_key, pods))


def _has_key(pod: Mapping[str, Any]) -> bool:
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return any(volume.get("name") == _KEY_VOLUME for volume in volumes)
