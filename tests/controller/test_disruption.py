"""Evictions on a real API server, whose own controllers watch over the budgets that ours makes.

There are no kubelets: the test makes the pods, and says that they are ready.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.charts.cluster import Helm, prepare
from tests.support.kube import Cluster, api_server
from tests.support.kuberay.paper import Paper, paper_kuberay, until
from tests.support.newer_api import newer_api
from tests.support.processes import BIN, Server

from .conftest import ACCOUNT, NAMESPACE, kubeconfig_of
from .test_controller import Shop, model

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with api_server(controllers=True) as running:
        prepare(running)
        with Helm(running, NAMESPACE) as helm:
            helm.install()
            yield running


@pytest.fixture(scope="module")
def paper(cluster: Cluster) -> Iterator[Paper]:
    with paper_kuberay(cluster, NAMESPACE) as running:
        yield running


@pytest.fixture(scope="module")
def shop(cluster: Cluster, paper: Paper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with newer_api(cluster, {"policy/v1": "policy/v1beta1"}) as url:
        account = yaml.safe_load(kubeconfig_of(cluster, ACCOUNT).read_text())
        account["clusters"][0]["cluster"] = {"server": url}
        folder = tmp_path_factory.mktemp("disruption")
        (folder / "account").write_text(yaml.safe_dump(account))
        settings: dict[str, Any] = {
            "listen": {"port": 0},
            "kubernetes": {"kubeconfig": str(folder / "account"), "namespaces": [NAMESPACE], "retry_max_s": 1},
            "leader_election": {"namespace": NAMESPACE, "duration_s": 600, "renew_s": 500, "retry_s": 0.2},
            "ray": {"dashboard_url": paper.dashboard_url, "poll_s": 0.1, "steady_poll_s": 0.3, "drain_margin_s": 5},
        }
        path: Path = folder / "controller.yaml"
        path.write_text(yaml.safe_dump(settings))
        with Server([BIN / "cloudach-controller", "--config", path]):
            yield Shop(cluster)


class Pods:
    def __init__(self, api: httpx.Client, shop: Shop) -> None:
        self._shop = shop
        self._api = api

    def start(self, name: str, kind: str = "worker") -> None:
        """A pod of the Model that is ready."""
        labels = {"cloudach.dev/model": "sim", "ray.io/node-type": kind, "ray.io/cluster": "sim-1"}
        container = {"name": "ray-worker", "image": "none"}
        spec = {"nodeName": "n1", "containers": [container], "terminationGracePeriodSeconds": 0}
        self._shop.apply({"apiVersion": "v1", "kind": "Pod", "metadata": self._meta(name, labels), "spec": spec})
        ready = {"type": "Ready", "status": "True"}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/status"
        patch = {"Content-Type": "application/merge-patch+json"}
        body = {"status": {"phase": "Running", "conditions": [ready]}}
        self._api.patch(path, headers=patch, content=json.dumps(body)).raise_for_status()

    def evict(self, name: str) -> int:
        """The status code: 201, or 429 where a budget is in the way."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
        body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": self._meta(name, {})}
        return self._api.post(path, json=body).status_code

    def evict_all(self, *names: str) -> list[int]:
        with ThreadPoolExecutor(len(names)) as at_once:
            return sorted(at_once.map(self.evict, names))

    def _meta(self, name: str, labels: dict[str, str]) -> dict[str, Any]:
        return {"name": name, "namespace": NAMESPACE, "labels": labels}


@pytest.fixture(scope="module")
def pods(cluster: Cluster, shop: Shop) -> Iterator[Pods]:
    with httpx.Client(base_url=cluster.url, verify=cluster.tls, timeout=30, trust_env=False) as api:
        yield Pods(api, shop)


def granted(shop: Shop) -> int | None:
    """How many evictions the API server would grant; None without a budget."""
    found = shop.get("poddisruptionbudget", "sim.replicas")
    status = found.get("status") or {}
    if not found or status.get("observedGeneration") != found["metadata"]["generation"]:
        return None
    return int(status["disruptionsAllowed"])


def test_a_drain_takes_one_replica_at_a_time(shop: Shop, pods: Pods, paper: Paper) -> None:
    shop.apply(model(replicas=2))
    shop.state("Ready", ready=2)
    for name in ("a", "b"):
        pods.start(name)
    until(lambda: granted(shop) == 1, "one may go")
    assert pods.evict_all("a", "b") == [201, 429]


def test_the_budget_follows_the_count_and_goes_below_two(shop: Shop, pods: Pods) -> None:
    shop.run("scale", "model/sim", "--replicas=3")
    for name in ("a", "b", "c"):
        pods.start(name)
    until(lambda: granted(shop) == 1, "one of three may go")
    assert shop.get("poddisruptionbudget", "sim.replicas")["spec"]["minAvailable"] == 2
    shop.run("scale", "model/sim", "--replicas=1")
    until(lambda: not shop.get("poddisruptionbudget", "sim.replicas"), "the budget goes")
    assert pods.evict_all("a", "b", "c") == [201, 201, 201]


def test_it_goes_with_its_model(shop: Shop, pods: Pods) -> None:
    shop.run("scale", "model/sim", "--replicas=2")
    until(lambda: shop.get("poddisruptionbudget", "sim.replicas"), "a budget")
    shop.run("delete", "model", "sim", "--wait=false")
    until(lambda: not shop.get("model"), "the Model's end")
    until(lambda: not shop.get("poddisruptionbudget", "sim.replicas"), "the budget's end")
