"""A Model is Ready when a request can reach a replica, which is some time after Serve calls it RUNNING."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.controller.shop import Shop, model
from tests.support.kube import Cluster
from tests.support.kuberay.paper import Paper
from tests.support.waiting import until

from .conftest import Start

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)


def not_reached(shop: Shop, paper: Paper) -> None:
    """Serve has a replica, and the Model says that nobody can reach it yet."""
    until(lambda: paper.replicas("sim") == 1, "a replica that is RUNNING")
    until(lambda: shop.condition("Ready").startswith("False NotReachable"), "the condition")
    status = shop.status()
    assert (status["state"], status["readyReplicas"], status["replicas"]) == ("Deploying", 0, 1)


def became_ready_after(shop: Shop, moment: datetime) -> bool:
    (ready,) = [one for one in shop.status()["conditions"] if one["type"] == "Ready"]
    return datetime.fromisoformat(ready["lastTransitionTime"]) >= moment.replace(microsecond=0)


def test_after_a_start_a_wake_and_a_replacement(start: Start, shop: Shop, paper: Paper) -> None:
    def release() -> None:
        moment = datetime.now(UTC)
        paper.unready.discard("sim")
        shop.state("Ready", ready=1)
        assert became_ready_after(shop, moment), "gateways learn from it how long a start takes"
        paper.unready.add("sim")

    paper.unready.add("sim")
    shop.apply(model())
    start(rollout={"replacement": "at_once"})
    not_reached(shop, paper)
    release()
    shop.run("scale", "model/sim", "--replicas=0")
    shop.state("Off", ready=0)
    shop.run("scale", "model/sim", "--replicas=1")
    not_reached(shop, paper)
    release()
    shop.apply(model(image="example.com/engine:2"))
    not_reached(shop, paper)
    release()
    # One more replica than can be reached through its own pod: the proxies that are there lead to it, too.
    shop.run("scale", "model/sim", "--replicas=2")
    shop.state("Ready", ready=2)
