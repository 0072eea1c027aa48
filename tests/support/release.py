"""The chart on a real API server, as an operator installs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.helm import CHART
from tests.support.kube import Cluster
from tests.support.kubectl import Kubectl, await_kinds, checked, run, tool
from tests.support.processes import ROOT

MODEL_SPEC: dict[str, Any] = {"source": {"huggingFace": {"repo": "Qwen/Qwen3-0.6B"}}, "replicas": 2}
CRDS = ROOT / "charts" / "cloudach-crds"
LATEST = "app.kubernetes.io/instance=demo"
KINDS = (
    "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,roles,rolebindings,jobs,pods,ingresses,"
    "networkpolicies,poddisruptionbudgets,horizontalpodautoscalers,models"
)


def rayservice_crd() -> dict[str, Any]:
    """As much of KubeRay as the chart asks for: that the kind is known."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "rayservices.ray.io"},
        "spec": {
            "group": "ray.io",
            "scope": "Namespaced",
            "names": {"kind": "RayService", "plural": "rayservices"},
            "versions": [version],
        },
    }


def kuberay_operator(namespace: str = "kuberay") -> list[dict[str, Any]]:
    """As much of KubeRay's operator as the chart looks for, with the labels of its own chart; nothing runs."""
    labels = {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"}
    container = {"name": "kuberay-operator", "image": "quay.io/kuberay/operator:v1.7.0"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kuberay-operator", "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, deployment]


def model(name: str) -> dict[str, Any]:
    """A Model in `serving` that is of no release."""
    metadata = {"name": name, "namespace": "serving"}
    return {"apiVersion": "cloudach.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": MODEL_SPEC}


def prepare(cluster: Cluster, crds: Path = CRDS) -> None:
    """Installs the CRDs of Models and RayServices, and objects that show where KubeRay runs."""
    cluster.kubectl.apply(rayservice_crd(), *kuberay_operator())
    upgrade_crds(cluster, crds)
    await_kinds(cluster.kubectl, "models.cloudach.dev", "rayservices.ray.io")


def upgrade_crds(cluster: Cluster, crds: Path = CRDS) -> None:
    """A server without CEL drops the rules of ours, when helm is told not to look."""
    old = ("--server-side=false", "--disable-openapi-validation") if cluster.minor < 28 else ()
    command = ("upgrade", "--install", "cloudach-crds", crds, *old)
    checked(run(tool("helm"), *command, kubeconfig=cluster.kubeconfig))
    if crds == CRDS:
        await_kinds(cluster.kubectl, "models.cloudach.dev", "modeluses.cloudach.dev")


class Helm:
    """The release `demo` in a namespace of its own; both end with the block."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.kubectl = cluster.kubectl

    def __enter__(self) -> Self:
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("uninstall", "demo", "--ignore-not-found", "--no-hooks")
        self.kubectl("-n", self.namespace, "delete", KINDS, "-l", LATEST, "--ignore-not-found", "--wait=false")

    def install(self, values: Mapping[str, Any] | None = None, *flags: str, chart: Path = CHART) -> str:
        """Its notes. Without hooks: no node runs their Jobs."""
        return self._values("install", values, chart, ("--no-hooks", *flags))

    def upgrade(self, values: Mapping[str, Any] | None = None, *flags: str, chart: Path = CHART) -> str:
        return self._values("upgrade", values, chart, ("--no-hooks", *flags))

    def rollback(self) -> str:
        """To the revision before."""
        return self._run("rollback", "demo", "--no-hooks")

    def uninstall(self) -> str:
        return self._run("uninstall", "demo", "--no-hooks")

    def get(self, *arguments: str) -> Any:
        return self.kubectl.get("-n", self.namespace, *arguments)

    def names(self) -> set[str]:
        """kind/name of all that is there of the release, by its label."""
        items = self.get(KINDS, "-l", LATEST)["items"]
        return {f"{one['kind']}/{one['metadata']['name']}" for one in items}

    def as_account(self, name: str) -> Kubectl:
        return Kubectl(self.cluster.kubeconfig, f"system:serviceaccount:{self.namespace}:{name}")

    def _values(self, action: str, values: Mapping[str, Any] | None, chart: Path, flags: tuple[str, ...]) -> str:
        return self._run(action, "demo", str(chart), "--values", "-", *flags, stdin=json.dumps(values or {}))

    def _run(self, *arguments: str, stdin: str = "") -> str:
        return checked(
            run(
                tool("helm"), "--namespace", self.namespace, *arguments, kubeconfig=self.cluster.kubeconfig, stdin=stdin
            )
        )


def raycluster_crd() -> dict[str, Any]:
    """As much of KubeRay's RayCluster as is needed here."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "rayclusters.ray.io"},
        "spec": {
            "group": "ray.io",
            "scope": "Namespaced",
            "names": {"kind": "RayCluster", "plural": "rayclusters"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
