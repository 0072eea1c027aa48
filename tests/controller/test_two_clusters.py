"""A Model with two Ray clusters: while one replaces the other, and while the old one waits for its streams."""

from __future__ import annotations

import pytest

from tests.support.kube import Cluster
from tests.support.kuberay.paper import Paper, until

from .conftest import Start
from .test_controller import Shop, model

pytestmark = pytest.mark.timeout(600)

AT_ONCE = {"rollout": {"replacement": "at_once"}}


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)


def test_after_a_replacement_the_new_cluster_is_looked_at(start: Start, shop: Shop, paper: Paper) -> None:
    """The RayService's head service has moved, and a connection to it stays with the old head."""
    shop.apply(model())
    start(**AT_ONCE)
    shop.state("Ready", ready=1)
    old = paper.active("sim")
    shop.apply(model(image="example.com/engine:2"))
    until(lambda: paper.active("sim") not in ("", old), "the switch")
    assert paper.dropped("sim") == [old]
    shop.run("scale", "model/sim", "--replicas=3")
    shop.state("Ready", ready=3, within_s=30)


def test_until_the_switch_the_old_cluster_is_looked_at(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(replicas=2))
    start(**AT_ONCE)
    shop.state("Ready", ready=2)
    old = paper.active("sim")
    paper.stalled.add("sim")
    shop.apply(model(replicas=2, image="example.com/engine:2"))
    until(lambda: paper.pending("sim"), "a second cluster")
    (lost, *_) = paper.pods(old)[1:]
    shop.run("delete", "pod", lost)
    shop.state("Degraded", ready=1)
    assert paper.active("sim") == old
