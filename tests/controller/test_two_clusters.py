"""A Model with two Ray clusters: while one replaces the other, and while the old one waits for its streams."""

from __future__ import annotations

import json

import pytest

from tests.controller.shop import Shop, model
from tests.support.accounts import NAMESPACE
from tests.support.kube import Cluster
from tests.support.kuberay.paper import Paper
from tests.support.waiting import until

from .conftest import Start

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


def test_pods_of_a_dropped_cluster_say_nothing_of_the_model(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(image="example.com/engine:1"))
    start(**AT_ONCE)
    shop.state("Ready", ready=1)
    old = paper.active("sim")
    shop.apply(model(image="example.com/engine:2"))
    until(lambda: paper.active("sim") not in ("", old), "the switch")
    paper.unpullable.add("example.com/engine:1")
    for lost in paper.pods(old)[1:]:
        shop.run("delete", "pod", lost)
    until(lambda: waits(shop, old, "ImagePullBackOff"), "a pod of the old cluster that fails")
    shop.run("scale", "model/sim", "--replicas=2")
    shop.state("Ready", ready=2, within_s=30)
    # Nor do they when the replica that serves is lost: requests wait for the next one.
    paper.stalled.add("sim")
    for lost in paper.pods(paper.active("sim"))[1:]:
        shop.run("delete", "pod", lost)
    assert shop.state("Deploying", ready=0, within_s=30)


def test_the_job_that_empties_a_store_says_nothing_of_the_model(start: Start, shop: Shop, paper: Paper) -> None:
    """KubeRay makes its pod from the head's template, with the Model's label, and of a cluster that may be active."""
    shop.apply(model())
    start()
    shop.state("Ready", ready=1)
    labels = {
        "cloudach.dev/model": "sim",
        "ray.io/cluster": paper.active("sim"),
        "ray.io/node-type": "redis-cleanup",
        "app.kubernetes.io/created-by": "kuberay-operator",
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "cleanup", "namespace": NAMESPACE, "labels": labels},
        "spec": {"containers": [{"name": "ray-head", "image": "x"}]},
    }
    shop.kubectl.apply(pod)
    try:
        waiting = {"name": "ray-head", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        waiting["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
        status = json.dumps({"status": {"containerStatuses": [waiting]}})
        shop.run("patch", "pod", "cleanup", "--subresource=status", "--type=merge", "-p", status)
        shop.run("scale", "model/sim", "--replicas=2")
        shop.state("Ready", ready=2, within_s=30)
    finally:
        shop.run("delete", "pod", "cleanup")


def waits(shop: Shop, cluster: str, reason: str) -> bool:
    found = json.loads(shop.run("get", "pods", "-l", f"ray.io/cluster={cluster}", "-o", "json"))["items"]
    states = [one["state"] for pod in found for one in (pod.get("status") or {}).get("containerStatuses") or []]
    return any((state.get("waiting") or {}).get("reason") == reason for state in states)
