"""Evictions on a real API server, whose own controllers watch over the budgets that ours makes.

There are no kubelets: the stand-in for KubeRay makes the pods, and says when they are ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.controller.shop import Shop, model
from tests.support.accounts import ACCOUNT, NAMESPACE, kubeconfig_of
from tests.support.kube import Cluster, api_server
from tests.support.kuberay.paper import Paper, paper_kuberay
from tests.support.newer_api import newer_api
from tests.support.processes import BIN, Server
from tests.support.release import Helm, prepare
from tests.support.waiting import until

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


class Evictions:
    """As `kubectl drain` asks for them."""

    def __init__(self, api: httpx.Client) -> None:
        self._api = api

    def of(self, pod: str) -> int:
        """The status code: 201, or 429 where a budget is in the way."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
        metadata = {"name": pod, "namespace": NAMESPACE}
        body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": metadata}
        return self._api.post(path, json=body).status_code

    def at_once(self, pods: list[str]) -> list[int]:
        with ThreadPoolExecutor(len(pods)) as together:
            return sorted(together.map(self.of, pods))


@pytest.fixture(scope="module")
def evictions(cluster: Cluster) -> Iterator[Evictions]:
    with httpx.Client(base_url=cluster.url, verify=cluster.tls, timeout=30, trust_env=False) as api:
        yield Evictions(api)


def workers(paper: Paper) -> list[str]:
    return paper.pods(paper.active("sim"))[1:]


def granted(shop: Shop) -> int | None:
    """How many evictions the API server would grant; None without a budget."""
    found = shop.get("poddisruptionbudget", "sim.replicas")
    status = found.get("status") or {}
    if not found or status.get("observedGeneration") != found["metadata"]["generation"]:
        return None
    return int(status["disruptionsAllowed"])


def all_answer(shop: Shop, count: int) -> None:
    until(lambda: shop.status().get("readyReplicas") == count, f"{count} replicas")


def test_a_drain_takes_one_replica_at_a_time(shop: Shop, evictions: Evictions, paper: Paper) -> None:
    shop.apply(model(replicas=2))
    all_answer(shop, 2)
    until(lambda: granted(shop) == 1, "one may go")
    paper.stalled.add("sim")  # what comes for it loads its weights
    old = workers(paper)
    assert evictions.at_once(old) == [201, 429]
    until(lambda: len(set(workers(paper)) - set(old)) == 1, "a pod for it")
    (rest,) = set(workers(paper)) & set(old)
    assert [evictions.of(rest) for _ in range(5)] == [429] * 5
    assert paper.replicas("sim") == 1
    paper.stalled.discard("sim")
    until(lambda: evictions.of(rest) == 201, "the other one may go")
    assert paper.replicas("sim") >= 1
    all_answer(shop, 2)


def test_the_budget_follows_the_count_and_goes_below_two(shop: Shop, evictions: Evictions, paper: Paper) -> None:
    shop.run("scale", "model/sim", "--replicas=3")
    all_answer(shop, 3)
    until(lambda: granted(shop) == 1, "one of three may go")
    assert shop.get("poddisruptionbudget", "sim.replicas")["spec"]["minAvailable"] == 2
    paper.stalled.add("sim")  # else one that comes may answer before the last eviction is asked for
    assert evictions.at_once(workers(paper)) == [201, 429, 429]
    paper.stalled.discard("sim")
    shop.run("scale", "model/sim", "--replicas=1")
    until(lambda: not shop.get("poddisruptionbudget", "sim.replicas"), "the budget goes")
    until(lambda: len(workers(paper)) == 1, "the others go")
    assert evictions.at_once(workers(paper)) == [201]


def test_it_goes_with_its_model(shop: Shop) -> None:
    shop.run("scale", "model/sim", "--replicas=2")
    until(lambda: shop.get("poddisruptionbudget", "sim.replicas"), "a budget")
    shop.run("delete", "model", "sim", "--wait=false")
    until(lambda: not shop.get("model"), "the Model's end")
    until(lambda: not shop.get("poddisruptionbudget", "sim.replicas"), "the budget's end")
