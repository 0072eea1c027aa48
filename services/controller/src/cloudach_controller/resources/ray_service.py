"""The RayService of a Model, as it is applied: pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cloudach_model_api.model import Model
from cloudach_model_api.names import GROUP, LABEL_MANAGED_BY, LABEL_MODEL, MANAGER
from cloudach_model_api.use import owner

from ..settings import Settings
from . import engine

ANNOTATION_CLUSTER = f"{GROUP}/cluster-hash"
"""What the rayClusterConfig was made from, and which it is; `form.py` tells more."""
ANNOTATION_MADE = f"{GROUP}/cluster"
"""The rayClusterConfig as it was made."""
ANNOTATION_REPLICAS = f"{GROUP}/replicas-asked"
"""spec.replicas when the autoscaler was last told where to go on."""


@dataclass(frozen=True, slots=True)
class Live:
    """What of a RayService that is there matters here."""

    cluster: dict[str, Any]
    cluster_hash: str
    record: str
    """Its rayClusterConfig as it was made; empty for one of an older release."""
    application: dict[str, Any]
    """Its one Serve application; empty when there is none that can be read."""
    override: dict[str, Any]
    replicas_asked: str


@dataclass(frozen=True, slots=True)
class Made:
    """A cluster with what it was made from."""

    config: dict[str, Any]
    stamp: str
    """The value of ANNOTATION_CLUSTER."""
    recorded: bool
    """Whether `config` is to the letter what was made; else it is what was found."""


def live(ray_service: dict[str, Any]) -> Live:
    spec = ray_service.get("spec") or {}
    annotations = ray_service["metadata"].get("annotations") or {}
    application = _application(spec.get("serveConfigV2"))
    overrides = application.get("deployments") or [{}]
    return Live(
        cluster=spec.get("rayClusterConfig") or {},
        cluster_hash=annotations.get(ANNOTATION_CLUSTER, ""),
        record=annotations.get(ANNOTATION_MADE, ""),
        application=application,
        override={name: value for name, value in overrides[0].items() if name != "name"},
        replicas_asked=annotations.get(ANNOTATION_REPLICAS, ""),
    )


def application(model: Model) -> dict[str, Any]:
    """All of it that restarts replicas when it changes."""
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
    """JSON, which is YAML: the same Model always makes the same text, and KubeRay compares texts."""
    deployments = [{"name": engine.deployment(model), **override}]
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "applications": [{**app, "deployments": deployments}],
    }
    return json.dumps(config, indent=1, sort_keys=True)


def ray_service(model: Model, settings: Settings, *, cluster: Made, config: str) -> dict[str, Any]:
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
                ANNOTATION_REPLICAS: str(model.spec.replicas),
            },
            "ownerReferences": [owner(model)],
        },
        "spec": {
            "serveConfigV2": config,
            "rayClusterConfig": cluster.config,
            # The head holds no replica: through its proxy is a hop more.
            "excludeHeadPodFromServeSvc": True,
            # Streams on the old cluster run out first.
            "rayClusterDeletionDelaySeconds": settings.ray.stream_limit_s,
            "upgradeStrategy": {"type": "NewCluster"},
        },
    }


def _application(config: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(config)["applications"][0]
    except (TypeError, ValueError, KeyError, IndexError):
        return {}
    return found
