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
from .cluster import cluster_hash

ANNOTATION_CLUSTER = f"{GROUP}/cluster-hash"
"""What the rayClusterConfig was made from; another one replaces the cluster."""
ANNOTATION_REPLICAS = f"{GROUP}/replicas-asked"
"""spec.replicas when the autoscaler was last told where to go on."""


@dataclass(frozen=True, slots=True)
class Live:
    """What of a RayService that is there matters here."""

    cluster: dict[str, Any]
    cluster_hash: str
    application: dict[str, Any]
    """Its one Serve application; empty when there is none that can be read."""
    override: dict[str, Any]
    replicas_asked: str


def live(ray_service: dict[str, Any]) -> Live:
    spec = ray_service.get("spec") or {}
    annotations = ray_service["metadata"].get("annotations") or {}
    application = _application(spec.get("serveConfigV2"))
    overrides = application.get("deployments") or [{}]
    return Live(
        cluster=spec.get("rayClusterConfig") or {},
        cluster_hash=annotations.get(ANNOTATION_CLUSTER, ""),
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


def ray_service(
    model: Model, settings: Settings, *, cluster: dict[str, Any], made_from: str | None, config: str
) -> dict[str, Any]:
    """`made_from`: the hash kept from a cluster that stays; None: `cluster` is what it should be."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": model.metadata.name,
            "namespace": model.metadata.namespace,
            "labels": {LABEL_MODEL: model.metadata.name, LABEL_MANAGED_BY: MANAGER},
            "annotations": {
                ANNOTATION_CLUSTER: cluster_hash(cluster) if made_from is None else made_from,
                ANNOTATION_REPLICAS: str(model.spec.replicas),
            },
            "ownerReferences": [owner(model)],
        },
        "spec": {
            "serveConfigV2": config,
            "rayClusterConfig": cluster,
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
