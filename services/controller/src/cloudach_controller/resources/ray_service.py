"""The RayService of a Model is made here, as it is applied. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cloudach_model_api.model import Model
from cloudach_model_api.names import GROUP, LABEL_MANAGED_BY, LABEL_MODEL, MANAGER
from cloudach_model_api.use import owner

from . import engine

ANNOTATION_CLUSTER = f"{GROUP}/cluster-hash"
"""It holds a hash of what the rayClusterConfig was made from, and its own hash: see `form.py`."""
ANNOTATION_MADE = f"{GROUP}/cluster"
"""It holds the rayClusterConfig as it was made."""
ANNOTATION_REPLICAS = f"{GROUP}/replicas-asked"
"""It holds spec.replicas as it was when the autoscaler was last told where to go on."""
ANNOTATION_OTHERS = f"{GROUP}/other-clusters"
"""It holds RayClusters, by name, that were made from something else than the RayService says now (`rollout.py`)."""
ANNOTATION_DROPPED = f"{GROUP}/dropped-cluster"
"""It names a RayCluster that was given up before it served, and when: `<name> <RFC 3339>`."""
ANNOTATION_ALLOWED = f"{GROUP}/replacement-allowed"
"""It holds the hash of pods that may take a second set of GPUs."""
ANNOTATION_WORD = f"{GROUP}/replacement-word"
"""It holds the word of the Model's `cloudach.dev/allow-replacement` that was used last."""
ANNOTATION_MAY_SLEEP = f"{GROUP}/may-sleep-since"
"""It holds, as RFC 3339, since when the spec lets the Model sleep."""


@dataclass(frozen=True, slots=True)
class Live:
    """This holds what matters of a RayService that exists."""

    cluster: dict[str, Any]
    cluster_hash: str
    record: str
    """It is the rayClusterConfig as it was made, and empty for one of an older release."""
    application: dict[str, Any]
    """It is the one Serve application, and empty when none can be read."""
    override: dict[str, Any]
    replicas_asked: str
    active: str = ""
    """This RayCluster serves."""
    pending: str = ""
    """This RayCluster is to take over."""
    pending_up: bool = False
    """The head of the pending cluster answers."""
    pending_ready: bool = False
    """The pending cluster takes over in this moment."""
    observed: bool = True
    """KubeRay has seen the spec as it is."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def bare_application(self) -> dict[str, Any]:
        """Returns the application without the options of the deployment."""
        return {name: value for name, value in self.application.items() if name != "deployments"}


@dataclass(frozen=True, slots=True)
class Made:
    """It is a rayClusterConfig with a stamp that says what it was made from."""

    config: dict[str, Any]
    stamp: str
    """This is the value of ANNOTATION_CLUSTER."""
    recorded: bool
    """If it is set, `config` is to the letter what was made. Otherwise it is what was found."""


def live(ray_service: dict[str, Any]) -> Live:
    spec = ray_service.get("spec") or {}
    annotations = ray_service["metadata"].get("annotations") or {}
    application = _application(spec.get("serveConfigV2"))
    overrides = application.get("deployments") or [{}]
    status = ray_service.get("status") or {}
    pending = status.get("pendingServiceStatus") or {}
    told = pending.get("applicationStatuses") or {}
    generation = ray_service["metadata"].get("generation")
    return Live(
        cluster=spec.get("rayClusterConfig") or {},
        cluster_hash=annotations.get(ANNOTATION_CLUSTER, ""),
        record=annotations.get(ANNOTATION_MADE, ""),
        application=application,
        override={name: value for name, value in overrides[0].items() if name != "name"},
        replicas_asked=annotations.get(ANNOTATION_REPLICAS, ""),
        active=str((status.get("activeServiceStatus") or {}).get("rayClusterName") or ""),
        pending=str(pending.get("rayClusterName") or ""),
        pending_up=bool(told),
        pending_ready=bool(told) and all(app.get("status") == "RUNNING" for app in told.values()),
        observed=generation is None or status.get("observedGeneration") == generation,
        annotations=annotations,
    )


def may_sleep_since(ray_service: dict[str, Any] | None, now: datetime) -> datetime | None:
    """Returns since when the spec lets its Model sleep. Where that has not been noted yet, it is now."""
    if ray_service is None:
        return None
    try:
        # A change by hand may have left out the zone, or written a time that is yet to come.
        return min(
            datetime.fromisoformat((ray_service["metadata"].get("annotations") or {})[ANNOTATION_MAY_SLEEP]), now
        )
    except (KeyError, ValueError, TypeError):
        return now


def application(model: Model) -> dict[str, Any]:
    """Returns the Serve application without its deployment's options: every change of it restarts replicas."""
    app: dict[str, Any] = {
        "name": engine.APPLICATION,
        "route_prefix": "/",
        "import_path": engine.IMPORT_PATH,
        "args": engine.build_args(model),
    }
    env = engine.runtime_env(model)
    if env and model.spec.source.simulator is not None:
        app["runtime_env"] = {"env_vars": env}
    return app


def serve_config(model: Model, app: dict[str, Any], override: dict[str, Any]) -> str:
    """Returns JSON, which is YAML. One Model always makes the same text, because KubeRay compares texts."""
    deployments = [{"name": engine.deployment(model), **override}]
    return json.dumps(serve_document({**app, "deployments": deployments}), indent=1, sort_keys=True)


def serve_document(app: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration that Serve gets, from KubeRay or from us. It would refuse to change its
    `http_options`.
    """
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "applications": [app],
    }


def ray_service(
    model: Model,
    cluster: Made,
    config: str,
    *,
    notes: Mapping[str, str],
    deletion_delay_s: int,
    replaces: bool = True,
) -> dict[str, Any]:
    """`notes` are further annotations. `deletion_delay_s` says for how long a cluster that KubeRay drops goes on.

    `replaces` lets KubeRay start a second cluster where the text is not what the first was made from.
    """
    record = {ANNOTATION_MADE: json.dumps(cluster.config, sort_keys=True)} if cluster.recorded else {}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": model.metadata.name,
            "namespace": model.metadata.namespace,
            "labels": {LABEL_MODEL: model.metadata.name, LABEL_MANAGED_BY: MANAGER},
            "annotations": {
                ANNOTATION_CLUSTER: cluster.stamp,
                **record,
                **notes,
                ANNOTATION_REPLICAS: str(model.spec.replicas),
            },
            "ownerReferences": [owner(model)],
        },
        "spec": {
            "serveConfigV2": config,
            "rayClusterConfig": cluster.config,
            # The head holds no replica, so its proxy would only be one hop more.
            "excludeHeadPodFromServeSvc": True,
            "rayClusterDeletionDelaySeconds": deletion_delay_s,
            "upgradeStrategy": {"type": "NewCluster" if replaces else "None"},
        },
    }


def _application(config: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(config)["applications"][0]
    except (TypeError, ValueError, KeyError, IndexError):
        return {}
    return found
