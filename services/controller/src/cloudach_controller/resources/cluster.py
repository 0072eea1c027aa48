"""This module makes the rayClusterConfig that a Model's spec and the settings ask for. Pure.

It has a head without engines, and worker pods that come and go with the replicas.

Running clusters are compared with this text. So for one spec and one configuration it must stay the same for good, to
the letter. A release that makes another text replaces every cluster. What is new in a release goes elsewhere:

- A new field or setting whose change is to replace pods is written here, but only where it is set. Without it the
  text is as it was.
- Everything else that shapes the pods belongs in `additions.py`, which is not compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from cloudach_model_api.engine import Toleration
from cloudach_model_api.model import Model
from cloudach_model_api.names import LABEL_MANAGED_BY, LABEL_MODEL, MANAGER

from ..settings import Settings
from . import adapters
from .engine import logical_cpus

GROUP = "engines"
HEAD = "ray-head"
WORKER = "ray-worker"
"""KubeRay wants the containers that Ray runs in to have these names."""

_MAX_PODS = 10_000
"""A change of maxReplicas does not reach a running cluster, so it is large from the start."""


def asked_cluster(model: Model, settings: Settings) -> dict[str, Any]:
    spec = model.spec
    cluster: dict[str, Any] = {
        "rayVersion": settings.inference.ray_version,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": settings.inference.worker_idle_s},
        "headGroupSpec": {
            # With num-cpus 0 no replica is placed on the head.
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
            "template": _pod(model, settings, HEAD, _head_resources(settings)),
        },
        "workerGroupSpecs": [
            {
                "groupName": GROUP,
                "replicas": 0,
                "minReplicas": 0,
                "maxReplicas": _MAX_PODS,
                "rayStartParams": {"num-cpus": str(logical_cpus(model))},
                "template": _pod(model, settings, WORKER, _worker_resources(model, settings)),
            }
        ],
    }
    gpus, name = _gpus(model), spec.gpu.resource_name
    if gpus and not name.endswith("gpu"):
        # KubeRay and Ray's autoscaler take no resource of such a name for a GPU, so no replica would ever get one.
        cluster["workerGroupSpecs"][0]["rayStartParams"]["num-gpus"] = str(gpus)
    if settings.ray.token_auth:
        cluster["authOptions"] = {"mode": "token", "secretName": settings.ray.token_secret}
    if settings.ray.gcs_redis_address:
        options: dict[str, Any] = {"redisAddress": settings.ray.gcs_redis_address}
        if settings.ray.gcs_redis_secret:
            key = {"name": settings.ray.gcs_redis_secret, "key": "password"}
            options["redisPassword"] = {"valueFrom": {"secretKeyRef": key}}
        cluster["gcsFaultToleranceOptions"] = options
    # KubeRay passes over new tolerations; in an annotation they count.
    _stamp(cluster["workerGroupSpecs"][0]["template"], _plain(spec.tolerations))
    of_head = cluster["headGroupSpec"]["template"]["spec"].get("tolerations")
    if of_head:
        _stamp(cluster["headGroupSpec"]["template"], of_head)
    return cluster


def environment(settings: Settings) -> dict[str, str]:
    """Returns the variables of every Ray process. They put HAProxy before the replicas, which stream to it directly."""
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(settings.ray.stream_limit_s),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "VLLM_NO_USAGE_STATS": "1",
        **settings.inference.env,
    }


def _routing(model: Model) -> dict[str, str]:
    """A router that looks at prompts needs the requests' bodies, which HAProxy keeps from it otherwise."""
    if model.spec.routing == "balanced":
        return {}
    return {
        "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY": "1",
        # Longer bodies are routed as if balanced. HAProxy has two buffers of this size for each connection in use.
        "RAY_SERVE_HAPROXY_INGRESS_REQUEST_ROUTER_BUFSIZE": str(2**20),
    }


def _pod(model: Model, settings: Settings, container: str, resources: dict[str, Any]) -> dict[str, Any]:
    spec = model.spec
    head = container == HEAD
    ports = {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": 8000} if head else {"serve": 8000}
    variables = _routing(model) | environment(settings)
    env = [{"name": name, "value": value} for name, value in sorted(variables.items())]
    main: dict[str, Any] = {
        "name": container,
        "image": spec.image or settings.inference.image,
        "env": [*env, *_referring_env(model)],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "resources": resources,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    store = spec.source.object_store
    secrets = adapters.credentials(model)
    if store is not None and store.credentials_secret is not None:
        secrets = [{"secretRef": {"name": store.credentials_secret.name}}, *secrets]
    if secrets:
        main["envFrom"] = secrets
    pod: dict[str, Any] = {
        "containers": [main],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "fsGroup": 100,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "enableServiceLinks": False,
    }
    if spec.service_account_name:
        pod["serviceAccountName"] = spec.service_account_name
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": each.name} for each in spec.image_pull_secrets]
    if head:
        _place_head(model, settings, pod)
    else:
        _place(model, settings, pod)
    return {"metadata": {"labels": {LABEL_MODEL: model.metadata.name, LABEL_MANAGED_BY: MANAGER}}, "spec": pod}


def _place(model: Model, settings: Settings, pod: dict[str, Any]) -> None:
    """Says on which nodes worker pods run, and with which volumes."""
    spec = model.spec
    gpu_type = {settings.inference.gpu_type_label: spec.gpu.type} if spec.gpu.type else {}
    if spec.node_selector or gpu_type:
        pod["nodeSelector"] = {**gpu_type, **spec.node_selector}
    if spec.affinity and (affinity := spec.affinity.to_pod()):
        pod["affinity"] = affinity
    if spec.tolerations:
        pod["tolerations"] = _plain(spec.tolerations)
    volumes = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.inference.shared_memory}}]
    mounts: list[dict[str, Any]] = [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    if spec.source.pvc is not None:
        claim: dict[str, Any] = {"claimName": spec.source.pvc.claim_name, "readOnly": True}
        volumes.append({"name": "weights", "persistentVolumeClaim": claim})
        mounts.append({"name": "weights", "mountPath": adapters.WEIGHTS_FOLDER, "readOnly": True})
    for number, (claim_name, folder) in enumerate(adapters.claims(model).items()):
        volume = f"adapters-{number}"
        volumes.append({"name": volume, "persistentVolumeClaim": {"claimName": claim_name, "readOnly": True}})
        mounts.append({"name": volume, "mountPath": folder, "readOnly": True})
    pod["volumes"] = volumes
    pod["containers"][0]["volumeMounts"] = mounts


def _place_head(model: Model, settings: Settings, pod: dict[str, Any]) -> None:
    """Sends the head to a node with GPUs only if told to, because it needs none and keeps such a node from being taken
    down.
    """
    given, spec = settings.inference, model.spec
    follows = given.head_with_model
    selector = {**(spec.node_selector if follows else {}), **given.head_node_selector}
    tolerations = [*_plain(given.head_tolerations), *(_plain(spec.tolerations) if follows else [])]
    if selector:
        pod["nodeSelector"] = selector
    if tolerations:
        pod["tolerations"] = tolerations
    if follows and spec.affinity and (affinity := spec.affinity.to_pod()):
        pod["affinity"] = affinity


def _plain(tolerations: Iterable[Toleration]) -> list[dict[str, Any]]:
    return [each.model_dump(by_alias=True, exclude_none=True) for each in tolerations]


def _stamp(template: dict[str, Any], tolerations: list[dict[str, Any]]) -> None:
    template["metadata"]["annotations"] = {"cloudach.dev/tolerations-hash": short(tolerations)}


def _referring_env(model: Model) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for variable in model.spec.engine.env:
        if variable.value_from is not None:
            source = variable.value_from.model_dump(by_alias=True, exclude_none=True)
            found.append({"name": variable.name, "valueFrom": source})
    weights = model.spec.source
    if weights.hugging_face is not None and weights.hugging_face.token_secret is not None:
        token = weights.hugging_face.token_secret
        reference = {"secretKeyRef": {"name": token.name, "key": token.key}}
        found.append({"name": "HF_TOKEN", "valueFrom": reference})
    if weights.object_store is not None and weights.object_store.endpoint is not None:
        found.append({"name": "AWS_ENDPOINT_URL", "value": weights.object_store.endpoint})
    return [*found, *adapters.tokens(model)]


def _head_resources(settings: Settings) -> dict[str, Any]:
    memory = settings.inference.head_memory
    return {"requests": {"cpu": settings.inference.head_cpu, "memory": memory}, "limits": {"memory": memory}}


def _worker_resources(model: Model, settings: Settings) -> dict[str, Any]:
    given = model.spec.resources
    defaults = {"cpu": settings.inference.worker_cpu, "memory": settings.inference.worker_memory}
    # A default must not be above a limit that the Model gives.
    requests = {name: value for name, value in defaults.items() if name not in given.limits} | given.requests
    limits: dict[str, Any] = dict(given.limits)
    gpus = _gpus(model)
    if gpus:
        requests[model.spec.gpu.resource_name] = limits[model.spec.gpu.resource_name] = gpus
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def _gpus(model: Model) -> int:
    """Returns the GPUs of one worker pod."""
    return model.spec.gpu.count_per_pod if model.spec.gpus_per_replica else 0


def short(value: Any) -> str:
    """Returns a hash of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
