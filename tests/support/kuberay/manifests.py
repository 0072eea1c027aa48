"""The objects that KubeRay and Kubernetes make for a RayCluster: pure.

Names, labels, selectors and ports are those that the real operator (main of 2026-08-19) was seen to write; see also
`ray-operator/controllers/ray/common/service.go` and `pod.go` in KubeRay's source. One thing differs: there are no
RayCluster objects, so the RayService owns what a RayCluster owns there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

LABEL_CLUSTER = "ray.io/cluster"
LABEL_NODE_TYPE = "ray.io/node-type"
LABEL_SERVE = "ray.io/serve"
FINALIZER = "ray.io/rayservice-finalizer"
MADE_BY = {"app.kubernetes.io/created-by": "kuberay-operator", "app.kubernetes.io/name": "kuberay"}
SERVE_PORT, DASHBOARD_PORT = 8000, 8265
_HEAD_PORTS = {"gcs": 6379, "dashboard": DASHBOARD_PORT, "client": 10001, "serve": SERVE_PORT}


def owner(ray_service: dict[str, Any]) -> dict[str, Any]:
    meta = ray_service["metadata"]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def head_service_name(name: str) -> str:
    """Of a RayService or a RayCluster: `GenerateHeadServiceName` in util.go."""
    return f"{name}-head-svc"


def pod(
    name: str, cluster: str, config: dict[str, Any], node_type: str, reference: dict[str, Any], *, excluded: bool
) -> dict[str, Any]:
    """`node_type`: head, worker or redis-cleanup, whose pod is made from the head's template, labels included.

    `excluded`: excludeHeadPodFromServeSvc of the RayService.
    """
    group = config["workerGroupSpecs"][0] if node_type == "worker" else config["headGroupSpec"]
    template = copy.deepcopy(group["template"])
    meta = template.get("metadata") or {}
    ours = {
        LABEL_CLUSTER: cluster,
        LABEL_NODE_TYPE: node_type,
        "ray.io/group": group.get("groupName", "headgroup"),
        "ray.io/identifier": f"{cluster}-{node_type}",
        "ray.io/is-ray-node": "yes",
    }
    if node_type != "redis-cleanup":
        ours[LABEL_SERVE] = "false" if node_type == "head" and excluded else "true"
    secret = token_secret(config)
    if secret:  # configureTokenAuth in pod.go
        reads = {"secretKeyRef": {"name": secret, "key": "auth_token"}}
        variables = [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": reads}]
        ray = template["spec"]["containers"][0]
        ray["env"] = [*(ray.get("env") or []), *variables]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {**(meta.get("labels") or {}), **ours, **MADE_BY},
            "annotations": meta.get("annotations") or {},
            "ownerReferences": [reference],
        },
        # Else a scheduler that runs would say that there is no node.
        "spec": {**template["spec"], "schedulerName": "paper"},
    }


def token_secret(config: dict[str, Any]) -> str:
    """The Secret that locks a cluster; empty: none does. KubeRay would make one where none is named; we name it."""
    return str((config.get("authOptions") or {}).get("secretName") or "")


def serve_service(ray_service: dict[str, Any], cluster: str) -> dict[str, Any]:
    """A ClusterIP: it refuses connections without endpoints, and kept ones stay with their pod."""
    name = ray_service["metadata"]["name"]
    selector = {LABEL_CLUSTER: cluster, LABEL_SERVE: "true"}
    labels = {"ray.io/originated-from-cr-name": name, LABEL_SERVE: f"{name}-serve"}
    spec = {"type": "ClusterIP", "selector": selector, "ports": [{"name": "serve", "port": SERVE_PORT}]}
    return _service(f"{name}-serve-svc", labels, spec, ray_service)


def head_service(ray_service: dict[str, Any], cluster: str, *, of_cluster: bool) -> dict[str, Any]:
    """Headless, with addresses that are not ready. `of_cluster`: the RayCluster's own, which never moves."""
    name = head_service_name(cluster if of_cluster else ray_service["metadata"]["name"])
    selector = {LABEL_CLUSTER: cluster, LABEL_NODE_TYPE: "head", "ray.io/identifier": f"{cluster}-head"}
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": selector,
        "ports": [{"name": port, "port": number} for port, number in sorted(_HEAD_PORTS.items())],
    }
    labels = {"ray.io/originated-from-cr-name": ray_service["metadata"]["name"], LABEL_NODE_TYPE: "head"}
    return _service(name, labels | ({LABEL_CLUSTER: cluster} if of_cluster else {}), spec, ray_service)


def _service(name: str, labels: dict[str, str], spec: dict[str, Any], owned_by: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels | MADE_BY, "ownerReferences": [owner(owned_by)]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def endpoint_slice(
    name: str, service: str, port: int, endpoints: Iterable[dict[str, Any]], reference: dict[str, Any]
) -> dict[str, Any]:
    """discovery.k8s.io/v1, as Kubernetes' own controller makes it of a Service with a selector, and with its labels."""
    labels = {
        LABEL_SERVE: service.removesuffix("-svc"),
        "kubernetes.io/service-name": service,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        **MADE_BY,
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": labels, "ownerReferences": [reference]},
        "addressType": "IPv4",
        "ports": [{"name": "serve", "port": port, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def endpoint(address: str, pod_name: str, uid: str, namespace: str, *, ready: bool) -> dict[str, Any]:
    return {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "targetRef": {"kind": "Pod", "name": pod_name, "namespace": namespace, "uid": uid},
    }


def cleanup_job(cluster: str, pod_template: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """With GCS fault tolerance KubeRay empties the store by a Job when the RayCluster goes."""
    spec = {**pod_template["spec"], "restartPolicy": "Never"}
    template = {"metadata": {"labels": pod_template["metadata"]["labels"]}, "spec": spec}
    metadata = {"name": f"{cluster}-redis-cleanup", "labels": MADE_BY, "ownerReferences": [reference]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}


def as_kuberay_writes(ray_service: dict[str, Any]) -> dict[str, Any]:
    """What comes of a full update: KubeRay reads into Go's types and writes all of it back, with its finalizer.

    Empty structs without `omitempty` appear, so the generation is 2 at once.
    """
    written = copy.deepcopy(ray_service)
    written["metadata"]["finalizers"] = [*(written["metadata"].get("finalizers") or []), FINALIZER]
    config = written["spec"]["rayClusterConfig"]
    groups = [config["headGroupSpec"], *(config.get("workerGroupSpecs") or [])]
    for group in groups:
        for container in group["template"]["spec"]["containers"]:
            container.setdefault("resources", {})
    for group in config.get("workerGroupSpecs") or []:
        group.setdefault("numOfHosts", 1)
        group.setdefault("scaleStrategy", {})
    return written
