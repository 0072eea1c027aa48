"""Images, a simulator, and the chart installed on a cluster whose node runs pods."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chart_pods import ray_pods
from tests.chart_pods.node import NAMESPACE, Node, node_with, require_node
from tests.chart_pods.ray_pods import HEAD, WORKER
from tests.support import images
from tests.support.helm import RELEASED, RELEASED_CRDS, VERSION
from tests.support.kubectl import await_kinds
from tests.support.processes import ROOT
from tests.support.release import kuberay_operator, raycluster_crd, rayservice_crd
from tests.support.waiting import until

VALKEY = "docker.io/valkey/valkey:9.0.8-alpine3.24"
SIMULATOR = "ghcr.io/cloudach/simulator:test"
VERSIONS = (RELEASED.stem.rpartition("-")[2], VERSION)
NAMES = ("demo-cloudach-valkey", "demo-cloudach-gateway", "demo-cloudach-raystore")
WAIT = ("--wait=legacy", "--timeout", "10m")
"""For all pods. Helm's newer way waits for the Model as well, and KubeRay, which would make it ready, is not here."""
CRDS_APART = ("--namespace", "default")
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """The images. Both versions of the chart run what this tree holds: only the tag differs."""
    require_node()
    folder = tmp_path_factory.mktemp("images")
    base = images.base()
    gateway, controller = (
        images.build(ROOT / "docker" / f"{part}.Dockerfile", base, folder / part) for part in ("gateway", "controller")
    )
    valkey = images.Contents()
    (server,) = [path for path in gateway.layers[-1].entries if path.endswith("/valkey-server")]
    valkey.entries["/usr/local/bin/valkey-server"] = server
    valkey.entries["/usr/local/bin/valkey-cli"] = images.VALKEY_CLI.encode()
    simulator = images.package("cloudach-inference", folder / "simulator")
    parts = {
        "gateway": ([f"ghcr.io/cloudach/gateway:{version}" for version in VERSIONS], gateway),
        "controller": ([f"ghcr.io/cloudach/controller:{version}" for version in VERSIONS], controller),
        "valkey": ([VALKEY], replace(gateway, layers=[*gateway.layers, valkey], entrypoint=["valkey-server"])),
        "sim": ([SIMULATOR], replace(gateway, layers=[base, simulator], entrypoint=["cloudach-sim"])),
    }
    made = [images.write(folder / f"{part}.tar", names, image) for part, (names, image) in parts.items()]
    yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def node(archives: list[Path]) -> Iterator[Node]:
    """With the namespace, which ends with the tests."""
    with node_with(archives) as node:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
        yield node


@pytest.fixture(scope="session")
def addresses(node: Node) -> dict[str, str]:
    """Cluster IPs by Service name: of the simulator, which runs, and of the chart's Services, whose IPs are free."""
    node.apply(*simulator(), *ray_pods.services(), *map(service, NAMES))
    found = {name: str(node.get("service", name)["spec"]["clusterIP"]) for name in ("simulator", HEAD, WORKER, *NAMES)}
    node.kubectl("delete", "service", *NAMES)
    node.kubectl("rollout", "status", "deployment/simulator", "--timeout=300s", timeout_s=310)
    return found


@pytest.fixture(scope="session")
def volume(node: Node) -> Iterator[None]:
    """A volume for each claim where the cluster makes none by itself; its node is this machine then."""
    if node.get("storageclasses")["items"]:
        yield
        return
    folders = {part: Path(tempfile.mkdtemp(prefix=f"cloudach-{part}-")) for part in ("valkey", "raystore")}
    for part, folder in folders.items():
        folder.chmod(0o777)
        node.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"cloudach-test-{part}"},
                "spec": {
                    "capacity": {"storage": "8Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "hostPath": {"path": str(folder)},
                    "claimRef": {"namespace": NAMESPACE, "name": f"data-demo-cloudach-{part}-0"},
                },
            }
        )
    yield
    for part, folder in folders.items():
        node.kubectl("delete", "pv", f"cloudach-test-{part}", "--ignore-not-found", "--wait=false")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def crds(node: Node) -> None:
    """The Model as it was released; without KubeRay also its kinds, and a Deployment for the preflight to find."""
    if not node.kubectl("get", "crd", "rayservices.ray.io", "--ignore-not-found"):
        node.apply(rayservice_crd(), raycluster_crd(), *kuberay_operator())
    old = ("--server-side=false", "--disable-openapi-validation") if node.minor() < 28 else ()
    node.helm("upgrade", "--install", "cloudach-crds", RELEASED_CRDS, *CRDS_APART, *old)
    await_kinds(node.kubectl, "models.cloudach.dev", "rayservices.ray.io", "rayclusters.ray.io")


@pytest.fixture(scope="session")
def before(node: Node, addresses: dict[str, str], crds: None) -> set[str]:
    """All objects before the installation.

    With what controllers make in each namespace, and without what is left for them to take away of the Services that
    were there for their addresses.
    """

    def settled() -> bool:
        there = objects(node)
        gone = not any(one.partition("/")[2].startswith(NAMES) for one in there)
        return gone and {"ServiceAccount/default", "ConfigMap/kube-root-ca.crt"} <= there

    until(settled, within_s=180)
    return objects(node)


@pytest.fixture(scope="session")
def release(node: Node, addresses: dict[str, str], volume: None, before: set[str]) -> dict[str, Any]:
    """The values that the released chart is installed with. Its gateways serve the simulator: there is no Ray here."""
    values = values_for(addresses)
    try:
        node.helm("install", "demo", RELEASED, "--values", "-", *WAIT, stdin=json.dumps(values))
    except Exception as error:
        raise AssertionError(f"{error}\n{node.tell()}") from error
    return values


def values_for(addresses: dict[str, str]) -> dict[str, Any]:
    """No DNS is asked of the cluster: names are in the pods' /etc/hosts."""
    aliases = [{"ip": addresses[name], "hostnames": [name, f"{name}.{NAMESPACE}.svc"]} for name in NAMES]
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}}
    return {
        "firstKey": {"create": True, "tenant": "acme"},
        "gateway": {
            "replicas": 2,
            "preStopSeconds": 3,
            "config": {"models": [{"id": "sim", "upstreams": [f"http://{addresses['simulator']}:8000"]}]},
            "resources": small,
            "hostAliases": aliases,
            "service": {"clusterIP": addresses["demo-cloudach-gateway"]},
        },
        "controller": {"resources": small, "hostAliases": aliases},
        "valkey": {"resources": small, "service": {"clusterIP": addresses["demo-cloudach-valkey"]}},
        "models": [{"name": "tiny", "spec": {"source": {"simulator": {}}, "replicas": 1}}],
        "test": {"model": "sim"},
    }


def objects(node: Node) -> set[str]:
    """kind/name of everything in the namespace, and of what the chart may make outside; Events pass by themselves."""
    listed = node.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    kinds = {"clusterroles", "clusterrolebindings", "priorityclasses", *listed}
    kinds -= {"events", "events.events.k8s.io"}
    items = node.get(",".join(sorted(kinds)))["items"]
    return {f"{one['kind']}/{one['metadata']['name']}" for one in items}


def service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": [{"port": 8000}]},
    }


def simulator() -> list[dict[str, Any]]:
    labels = {"app": "simulator"}
    container = {
        "name": "simulator",
        "image": SIMULATOR,
        "imagePullPolicy": "IfNotPresent",
        "args": ["--host=0.0.0.0", "--port=8000", "--rate=60"],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
    }
    pod = {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "simulator", "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
    return [deployment, service("simulator")]
