"""Images, a simulator, and the chart installed on a cluster whose node runs pods."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.node import NAMESPACE, Node, require_node
from tests.support import images
from tests.support.helm import CHART

VALKEY = "docker.io/valkey/valkey:9.0.8-alpine3.24"
GATEWAY = "ghcr.io/cloudach/gateway:0.1.0"
SIMULATOR = "ghcr.io/cloudach/simulator:test"
VOLUME = "/tmp/cloudach-test-valkey"  # noqa: S108 - on the node
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="session")
def node() -> Node:
    return require_node()


@pytest.fixture(scope="session")
def loaded(node: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The images are on the node."""
    folder = tmp_path_factory.mktemp("images")
    base = images.base()
    gateway = images.package("cloudach-gateway", folder / "gateway", "helm-test")
    valkey = images.Contents()
    (server,) = [path for path in gateway.entries if path.endswith("/valkey-server")]
    valkey.entries["/usr/local/bin/valkey-server"] = server
    valkey.entries["/usr/local/bin/valkey-cli"] = images.VALKEY_CLI.encode()
    simulator = images.package("cloudach-inference", folder / "simulator")
    for name, layers, entrypoint in (
        (GATEWAY, [base, gateway], ["cloudach-gateway"]),
        (VALKEY, [base, gateway, valkey], ["valkey-server"]),
        (SIMULATOR, [base, simulator], ["cloudach-sim"]),
    ):
        archive = images.write(folder / "image.tar", name, layers, entrypoint=entrypoint)
        node.load(archive)
        archive.unlink()


@pytest.fixture(scope="session")
def addresses(node: Node, loaded: None) -> Iterator[dict[str, str]]:
    """A namespace with a simulator and a volume, and cluster IPs that are free: by Service name."""
    apply_namespace(node)
    node.apply(*simulator())
    if not node.get("storageclasses")["items"]:
        node.apply(volume())
    found = {"simulator": service_ip(node, "simulator")}
    for name in ("demo-cloudach-valkey", "demo-cloudach-gateway"):
        node.apply(service(name))
        found[name] = service_ip(node, name)
    node.kubectl("delete", "service", "demo-cloudach-valkey", "demo-cloudach-gateway")
    node.kubectl("rollout", "status", "deployment/simulator", "--timeout=120s", timeout_s=130)
    yield found
    node.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", timeout_s=130)
    node.kubectl("delete", "pv", "cloudach-test-valkey", "--ignore-not-found", "--wait=false")
    shutil.rmtree(VOLUME, ignore_errors=True)


@pytest.fixture(scope="session")
def release(node: Node, addresses: dict[str, str]) -> dict[str, Any]:
    """The values that the chart is installed with. Its gateways serve the simulator: there is no Ray here."""
    values = values_for(addresses)
    node.helm("install", "demo", str(CHART), "--values", "-", "--wait", "--timeout", "4m", stdin=json.dumps(values))
    return values


def values_for(addresses: dict[str, str]) -> dict[str, Any]:
    """No DNS is asked of the cluster: names are in the pods' /etc/hosts."""
    names = ("demo-cloudach-valkey", "demo-cloudach-gateway")
    aliases = [{"ip": addresses[name], "hostnames": [name]} for name in names]
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}}
    model = {"id": "sim", "upstreams": [f"http://{addresses['simulator']}:8000"]}
    return {
        "preflight": False,
        "controller": {"enabled": False},
        "firstKey": {"create": True, "tenant": "acme"},
        "gateway": {
            "watchModels": False,
            "replicas": 2,
            "preStopSeconds": 3,
            "config": {"models": [model]},
            "resources": small,
            "hostAliases": aliases,
            "service": {"clusterIP": addresses["demo-cloudach-gateway"]},
        },
        "valkey": {"resources": small, "service": {"clusterIP": addresses["demo-cloudach-valkey"]}},
    }


def apply_namespace(node: Node) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})


def service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": [{"port": 8000}]},
    }


def service_ip(node: Node, name: str) -> str:
    return str(node.get("service", name)["spec"]["clusterIP"])


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


def volume() -> dict[str, Any]:
    """For Valkey's claim, where the cluster makes no volumes by itself; its node is this machine then."""
    shutil.rmtree(VOLUME, ignore_errors=True)
    Path(VOLUME).mkdir()
    Path(VOLUME).chmod(0o777)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "cloudach-test-valkey"},
        "spec": {
            "capacity": {"storage": "8Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": VOLUME, "type": "DirectoryOrCreate"},
            "claimRef": {"namespace": NAMESPACE, "name": "data-demo-cloudach-valkey-0"},
        },
    }
