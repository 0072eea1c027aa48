"""A real API server with the chart's rights, a KubeRay on paper, and the real controller with its own account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.accounts import ACCOUNT, NAMESPACE, kubeconfig_of
from tests.support.kube import Cluster, api_server
from tests.support.kuberay.paper import PATIENCE_S, Paper, paper_kuberay
from tests.support.objects import Objects
from tests.support.processes import BIN, Server
from tests.support.release import Helm, prepare

Start = Callable[..., Server]


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with api_server() as running:
        prepare(running)
        with Helm(running, NAMESPACE) as helm:
            helm.install()
            yield running


@pytest.fixture(scope="package")
def account(cluster: Cluster) -> Path:
    """A kubeconfig with the service account that the chart gives the controller."""
    return kubeconfig_of(cluster, ACCOUNT)


@pytest.fixture
def paper(cluster: Cluster) -> Iterator[Paper]:
    with paper_kuberay(cluster, NAMESPACE) as running:
        yield running


@pytest.fixture
def start(cluster: Cluster, account: Path, paper: Paper, tmp_path: Path) -> Iterator[Start]:
    """Starts controllers, with settings over the tests' own. What they made goes with the test."""
    running: list[Server] = []

    def begin(**changes: dict[str, Any]) -> Server:
        settings: dict[str, dict[str, Any]] = {
            "listen": {"port": 0},
            "kubernetes": {"kubeconfig": str(account), "namespaces": [NAMESPACE], "retry_max_s": 1},
            # Longer than any test: only those about it lose a Lease.
            "leader_election": {"namespace": NAMESPACE, "duration_s": 600, "renew_s": 500, "retry_s": 0.2},
            "ray": {"dashboard_url": paper.dashboard_url, "poll_s": 0.1, "steady_poll_s": 0.3, "drain_margin_s": 5},
        }
        for group, values in changes.items():
            settings[group] = settings.get(group, {}) | values
        path = tmp_path / f"controller-{len(running)}.yaml"
        path.write_text(yaml.safe_dump(settings))
        running.append(Server([BIN / "cloudach-controller", "--config", path]))
        return running[-1]

    yield begin
    for server in running:
        server.stop(PATIENCE_S)
    objects = Objects(cluster, NAMESPACE)
    made = {"labelSelector": "app.kubernetes.io/managed-by=cloudach-controller"}
    for kind, which in {"models": {}, "rayservices": made, "modeluses": made, "networkpolicies": made}.items():
        for one in objects.items(kind, **which):
            objects.merge(kind, one["metadata"]["name"], {"metadata": {"finalizers": None}})
            objects.delete(kind, one["metadata"]["name"])
    for kind, name in (
        ("leases", "cloudach-controller"),
        ("leases", "cloudach-models"),
        ("secrets", "cloudach-engine-keys"),
    ):
        objects.delete(kind, name)
