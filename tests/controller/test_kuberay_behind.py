"""KubeRay's operator does not follow: it is stopped, or a policy keeps it from the dashboards."""

from __future__ import annotations

import pytest

from tests.controller.shop import Shop, model
from tests.support.kube import Cluster
from tests.support.kuberay.paper import Paper
from tests.support.waiting import until

from .conftest import Start

pytestmark = pytest.mark.timeout(600)

LATE_S = 2.0  # 60 by default


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)


def test_a_change_that_a_stopped_operator_has_not_seen(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(drainSeconds=30))
    start(ray={"kuberay_late_s": LATE_S})
    shop.state("Ready", ready=1)
    until(lambda: shop.condition("Progressing").startswith("False UpToDate"), "all is taken")
    paper.stop_operator()
    before = shop.get("rayservice")["status"]["observedGeneration"]
    shop.apply(model(drainSeconds=40))  # in place, and nothing of it is seen in pods or replicas
    until(lambda: shop.condition("Degraded").startswith("True KubeRayBehind"), "the condition")
    after = shop.get("rayservice")["metadata"]["generation"]
    told = shop.condition("Degraded")
    assert f"has read generation {before} of the RayService, but it is at generation {after}, since 20" in told
    assert shop.condition("Progressing").startswith("True KubeRayBehind")
    status = shop.status()
    assert (status["state"], status["readyReplicas"]) == ("Degraded", 1), "what runs is served on"
    paper.start_operator()
    shop.state("Ready", ready=1)
    until(lambda: shop.condition("Progressing").startswith("False UpToDate"), "it is taken at last")


def test_an_operator_that_is_not_there(start: Start, shop: Shop, paper: Paper) -> None:
    paper.stop_operator()
    shop.apply(model())
    start(ray={"kuberay_late_s": LATE_S})
    until(lambda: "KubeRay has made no cluster" in shop.condition("Degraded"), "the condition")
    paper.start_operator()
    shop.state("Ready", ready=1)


def test_an_operator_that_is_shut_out_of_the_dashboard(start: Start, shop: Shop, paper: Paper) -> None:
    paper.shut_out.add("sim")
    shop.apply(model())
    start(ray={"kuberay_late_s": LATE_S})
    until(lambda: "networkPolicy.kuberayFrom" in shop.condition("Degraded"), "the setting that is to be looked at")
    assert shop.condition("Degraded").startswith("True KubeRayBehind")
    paper.shut_out.clear()
    shop.state("Ready", ready=1)
