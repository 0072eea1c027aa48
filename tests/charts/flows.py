"""Which connections there have to be, and which there must not be: the table of docs/kubernetes.md, and what is closed.

The ends are names of `world()`; `*` in a name stands for any Model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.support.helm import NAMESPACE, Object, Objects, pod_template
from tests.support.network_policies import End, Outside, Pod

TEAM = "team-a"
"""A second namespace with Models, one of which has the same name as one beside the release."""
MODELS = ((NAMESPACE, "qwen"), (NAMESPACE, "phi"), (TEAM, "qwen"))
METADATA = ("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "64:ff9b::a9fe:a9fe")


@dataclass(frozen=True)
class Row:
    """What the docs say: who has to reach whom, on which ports."""

    source: str
    target: str
    ports: tuple[int, ...]
    says: tuple[str, str]
    """How the docs call both ends."""
    protocol: str = "TCP"
    remark: str = ""

    @property
    def line(self) -> str:
        ports = ", ".join(map(str, self.ports)) if self.ports else "all"
        kind = "TCP and UDP" if self.protocol == "UDP" else self.protocol
        return f"| {self.says[0]} | {self.says[1]} | {ports} ({kind}) | {self.remark} |".replace("|  |", "| |")


_OWN = "what the Model's own pods listen on"
_WEIGHTS = "weights of the Hub or of a cloud's bucket"
ROWS = (
    Row("gateway", "dns", (53,), ("gateways", "DNS"), "UDP"),
    Row("gateway", "valkey", (6379,), ("gateways", "Valkey"), remark="or your own Redis"),
    Row("gateway", "api-server", (443, 6443), ("gateways", "the API server"), remark="with `gateway.watchModels`"),
    Row("gateway", "*-worker", (8000,), ("gateways", "worker pods of Models")),
    Row("controller", "dns", (53,), ("controllers", "DNS"), "UDP"),
    Row("controller", "api-server", (443, 6443), ("controllers", "the API server")),
    Row("controller", "*-head", (8265,), ("controllers", "head pods of Models")),
    Row("controller", "raystore", (6379,), ("controllers", "the store of Ray's state"), remark="`raystore.enabled`"),
    Row(
        "*-head", "raystore", (6379,), ("head pods of Models", "the store of Ray's state"), remark="`raystore.enabled`"
    ),
    Row("first-key", "dns", (53,), ("the key's Job", "DNS"), "UDP", "`firstKey.create`"),
    Row("first-key", "valkey", (6379,), ("the key's Job", "Valkey"), remark="or your own Redis"),
    Row("first-key", "api-server", (443, 6443), ("the key's Job", "the API server")),
    Row("delete-models", "dns", (53,), ("the Job before an uninstall", "DNS"), "UDP", "`models`"),
    Row("delete-models", "api-server", (443, 6443), ("the Job before an uninstall", "the API server")),
    Row("test", "dns", (53,), ("the pod of `helm test`", "DNS"), "UDP"),
    Row("test", "gateway", (8000, 9090), ("the pod of `helm test`", "gateways")),
    Row("test", "valkey", (6379,), ("the pod of `helm test`", "Valkey"), remark="or your own Redis"),
    Row("*-worker", "dns", (53,), ("pods of Models", "DNS"), "UDP"),
    Row("*-worker", "*-head", (), ("pods of a Model", "pods of the same Model"), remark=_OWN),
    Row("*-head", "api-server", (443, 6443), ("head pods of Models", "the API server"), remark="Ray's autoscaler"),
    Row("*-worker", "internet", (443,), ("pods of a Model", "the internet"), remark=_WEIGHTS),
    Row("kuberay", "*-head", (8265, 8000), ("KubeRay's operator", "head pods of Models")),
    Row("anybody", "gateway", (8000,), ("clients, or `gatewayFrom`", "gateways")),
    Row("prometheus", "gateway", (9090,), ("`metricsFrom`", "gateways")),
    Row("prometheus", "controller", (8080,), ("`metricsFrom`", "controllers")),
    Row("prometheus", "*-worker", (8080,), ("`metricsFrom`", "pods of Models")),
    Row("prometheus", "*-head", (8080, 44217, 44227), ("`metricsFrom`", "head pods of Models")),
)
OF_RAY = (8000, 8265, 52365, 6379, 10001, 8080, 44217)
"""Engines, dashboard, its agents, GCS, client server, metrics."""


def world(objects: Objects) -> dict[str, End]:
    """Everybody who is there, by name: the chart's pods with the labels and ports that it gives them."""
    ends: dict[str, End] = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: _of_chart(one)
        for one in objects
        if one["kind"] in ("Deployment", "StatefulSet", "Job", "Pod")
    }
    for namespace, name in MODELS:
        for node in ("head", "worker"):
            labels = {"cloudach.dev/model": name, "ray.io/node-type": node, "ray.io/cluster": f"{name}-x1y2z"}
            ends[f"{namespace}/{name}-{node}"] = Pod(namespace, labels)
    operator = {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"}
    ends |= {
        "kuberay": Pod("kuberay", operator),
        "prometheus": Pod("monitoring", {"app": "prometheus"}),
        "dns": Pod("kube-system", {"k8s-app": "kube-dns"}),
        "anybody": Pod("default", {"app": "something"}),
        "api-server": Outside("10.0.0.2"),
        "node": Outside("10.0.0.9"),
        "internet": Outside("8.8.8.8"),
        # Spoofs: whoever may make pods in a namespace of their own gives them what labels they like.
        "as-kuberay": Pod("evil", operator),
        "as-prometheus": Pod("evil", {"app": "prometheus"}),
        "as-model": Pod("evil", {"cloudach.dev/model": "qwen", "ray.io/node-type": "head"}),
        "neighbour": Pod(NAMESPACE, {"app": "something"}),
    }
    for part in ("gateway", "controller", "test", "first-key"):
        genuine = ends[part]
        assert isinstance(genuine, Pod)
        ends[f"as-{part}"] = replace(genuine, namespace="evil")
        ends[f"as-{part}-in-{TEAM}"] = replace(genuine, namespace=TEAM)
    return ends | {f"metadata {address}": Outside(address) for address in METADATA}


PLATFORM = ("gateway", "controller", "valkey", "first-key", "delete-models", "test", "raystore")
SPOOFS = ("as-", "anybody", "neighbour")


def open_flows(ends: Mapping[str, End]) -> list[tuple[str, str, int, str]]:
    """The rows of the docs for each Model."""
    found = []
    for row in ROWS:
        for source in _named(row.source, ends):
            for target in _named(row.target, ends):
                if row.source.startswith("*") and row.target.startswith("*") and _model(source) != _model(target):
                    continue
                for port in row.ports or OF_RAY:
                    found += [(source, target, port, kind) for kind in {row.protocol, "TCP"}]
    return found


def closed_flows(ends: Mapping[str, End]) -> list[tuple[str, str, int, str]]:
    """What must not be: all that spoofs want of engines and Valkey, and all that goes where nobody here has to."""
    engines = [f"{namespace}/{model}-{node}" for namespace, model in MODELS for node in ("head", "worker")]
    found = [
        (who, engine, port, "TCP") for who in ends if who.startswith(SPOOFS) for engine in engines for port in OF_RAY
    ]
    found += [(a, b, port, "TCP") for a in engines for b in engines if _model(a) != _model(b) for port in OF_RAY]
    # Each of the genuine ones has its own ports and no others; workers have no dashboard.
    found += [("gateway", engine, port, "TCP") for engine in engines for port in OF_RAY if port != 8000]
    found += [("controller", engine, port, "TCP") for engine in engines for port in OF_RAY if port != 8265]
    found += [("kuberay", engine, port, "TCP") for engine in engines for port in (52365, 6379, 10001, 8080)]
    for engine in engines:
        if engine.endswith("worker"):
            found += [("kuberay", engine, port, "TCP") for port in (8000, 8265)] + [("controller", engine, 8265, "TCP")]
            found += [(engine, "api-server", port, "TCP") for port in (443, 6443)]
            found += [(engine, "node", port, "TCP") for port in (443, 10250)]
        own = ("gateway", "valkey", "controller")
        found += [(engine, to, port, "TCP") for to in own for port in (6379, 8000, 8080)]
    # Valkey.
    others = ("controller", "delete-models", "prometheus", "kuberay", *engines)
    found += [(who, "valkey", 6379, "TCP") for who in (*(e for e in ends if e.startswith(SPOOFS)), *others)]
    asked = ("internet", "gateway", "api-server", "dns")
    found += [(who, to, port, "TCP") for who in ("valkey", "raystore") for to in asked for port in (53, 443, 8000)]
    # The store of Ray's state lets whatever bears a head's labels knock: each Model has a password of its own there.
    found += [(who, "raystore", 6379, "TCP") for who in ends if who.startswith(SPOOFS) and who != "as-model"]
    found += [(who, "raystore", 6379, "TCP") for who in ("gateway", "test", "kuberay", *engines) if "head" not in who]
    # What comes out of the platform's own pods.
    outside = ("anybody", "node", "internet")
    found += [(who, to, port, "TCP") for who in PLATFORM for to in outside for port in (80, 8080, 10250)]
    clouds = [name for name in ends if name.startswith("metadata ")]
    found += [(who, to, port, "TCP") for who in (*PLATFORM, *engines) for to in clouds for port in (80, 443, 8000)]
    # What nobody outside asks of them.
    found += [("anybody", "gateway", 9090, "TCP"), ("anybody", "controller", 8080, "TCP")]
    return list(dict.fromkeys(found))


def _of_chart(workload: Object) -> Pod:
    template = pod_template(workload)
    listed = [port for one in template["spec"]["containers"] for port in one.get("ports", ())]
    ports = {port["name"]: port["containerPort"] for port in listed}
    return Pod(workload["metadata"]["namespace"], template["metadata"]["labels"], ports=ports)


def _named(name: str, ends: Mapping[str, End]) -> list[str]:
    if not name.startswith("*"):
        return [name]
    return [f"{namespace}/{model}{name[1:]}" for namespace, model in MODELS if f"{namespace}/{model}{name[1:]}" in ends]


def _model(name: str) -> str:
    return name.rpartition("-")[0]
