"""Second clusters that fail, that are taken back, or that somebody's hands begin; KubeRay is on paper."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.controller.shop import Shop, model
from tests.support.kube import Cluster
from tests.support.kuberay.paper import Paper
from tests.support.waiting import until

from .conftest import Start

pytestmark = pytest.mark.timeout(600)

GOOD, TYPO, BETTER = "example.com/engine:1", "example.com/engine:typo", "example.com/engine:2"


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)


def approve(shop: Shop) -> None:
    """By the command that the Model tells."""
    until(lambda: "ReplacementPending" in shop.condition("Progressing"), "the question")
    shop.kubectl(*shop.condition("Progressing").partition("To allow it: kubectl ")[2].split())


def fails_to_start(shop: Shop, paper: Paper, **spec: Any) -> str:
    """The second cluster, whose image cannot be pulled."""
    paper.unpullable.add(TYPO)
    shop.apply(model(image=TYPO, **spec))
    approve(shop)
    return str(until(lambda: paper.pending("sim"), "a second cluster"))


def test_a_typo_in_the_first_image_is_mended_without_a_word_and_without_waiting(
    start: Start, shop: Shop, paper: Paper
) -> None:
    paper.unpullable.add(TYPO)
    shop.apply(model(image=TYPO))
    start()
    until(lambda: "ImagePullFailed" in shop.condition("Degraded"), "the cause")
    (failed,) = paper.made["sim"]
    shop.apply(model(image=GOOD))
    shop.state("Ready", ready=1)
    assert len(paper.made["sim"]) == 2
    until(lambda: paper.dropped("sim") == [], "the end of the one that never served")
    assert paper.active("sim") != failed
    # What serves now has its time when it is replaced.
    until(lambda: shop.get("rayservice")["spec"]["rayClusterDeletionDelaySeconds"] == 960, "the long delay")


def test_a_failed_replacement_is_taken_back(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(image=GOOD))
    start()
    shop.state("Ready", ready=1)
    first = paper.active("sim")
    second = fails_to_start(shop, paper)
    shop.apply(model(image=GOOD))
    until(lambda: not paper.pending("sim") and paper.dropped("sim") == [], "the second cluster's end")
    until(lambda: "UpToDate" in shop.condition("Progressing"), "the end of it")
    assert paper.active("sim") == first
    assert paper.made["sim"] == [first, second], "no third one"
    shop.run("scale", "model/sim", "--replicas=2")
    shop.state("Ready", ready=2)
    assert paper.made["sim"] == [first, second]


def test_a_typo_in_a_replacement_is_mended_without_another_word(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(image=GOOD))
    start()
    shop.state("Ready", ready=1)
    first = paper.active("sim")
    second = fails_to_start(shop, paper)
    shop.apply(model(image=BETTER))
    until(lambda: paper.active("sim") not in (first, second), "the switch")
    assert len(paper.made["sim"]) == 3
    until(lambda: paper.dropped("sim") == [first], "the end of the one that never served; the first has streams")
    until(lambda: "UpToDate" in shop.condition("Progressing"), "the end of it")


def test_counts_reach_the_first_cluster_while_a_second_one_is_on_its_way(
    start: Start, shop: Shop, paper: Paper
) -> None:
    args = {"engine": {"args": {"rate": 20.0}}}
    shop.apply(model(image=GOOD, **args))
    start()
    shop.state("Ready", ready=1)
    first = paper.active("sim")
    second = fails_to_start(shop, paper, engine={"args": {"rate": 30.0}})
    for replicas in (3, 0, 2):
        shop.run("scale", "model/sim", f"--replicas={replicas}")
        until(lambda wanted=replicas: paper.replicas("sim") == wanted, f"{replicas} replicas of the first")
    assert (paper.active("sim"), paper.pending("sim")) == (first, second)
    told = [config["applications"][0] for cluster, config in paper.puts if cluster == first]
    assert len(told) == 4
    assert {app["args"]["options"]["rate"] for app in told} == {20.0}, "the arguments are the second one's"
    # The second one takes over with the count of the moment.
    paper.unpullable.clear()
    until(lambda: paper.active("sim") == second, "the switch")
    shop.state("Ready", ready=2)
    told_last = [config["applications"][0] for cluster, config in paper.puts if cluster == second][-1]
    assert told_last["args"]["options"]["rate"] == 30.0
    assert len([cluster for cluster, _ in paper.puts if cluster == first]) == 4, "the old one is left alone"


def test_counts_come_back_with_the_manifest_from_before_a_failed_replacement(
    start: Start, shop: Shop, paper: Paper
) -> None:
    """KubeRay gave that very text to the first cluster already, and does not give it again."""
    shop.apply(model(image=GOOD, replicas=1))
    start()
    shop.state("Ready", ready=1)
    first = paper.active("sim")
    fails_to_start(shop, paper, replicas=1)
    shop.run("scale", "model/sim", "--replicas=3")
    until(lambda: paper.replicas("sim") == 3, "three replicas of the first")
    shop.apply(model(image=GOOD, replicas=1))
    until(lambda: not paper.pending("sim"), "the second cluster's end")
    until(lambda: paper.replicas("sim") == 1, "the count that the Model asks for")
    shop.state("Ready", ready=1)
    assert paper.active("sim") == first
    assert len([cluster for cluster, _ in paper.puts if cluster == first]) == 3, "once each"


def test_a_deletion_waits_for_streams_and_not_for_a_second_cluster(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(image=GOOD, drainSeconds=600))
    start()
    shop.state("Ready", ready=1)
    first = paper.active("sim")
    fails_to_start(shop, paper, drainSeconds=600)
    paper.held.add(first)
    shop.run("delete", "model", "sim", "--wait=false")
    until(lambda: "Replicas that are left: 1." in shop.condition("Progressing"), "the streams that are left")
    assert shop.get("rayservice"), "it must stay as long as streams run"
    paper.held.clear()
    until(lambda: not shop.get("model"), "the Model's end")


def test_a_deletion_waits_for_the_streams_of_a_cluster_that_was_replaced(
    start: Start, shop: Shop, paper: Paper
) -> None:
    shop.apply(model(image=GOOD, drainSeconds=600))
    start()
    shop.state("Ready", ready=1)
    first = paper.active("sim")
    shop.apply(model(image=BETTER, drainSeconds=600))
    approve(shop)
    until(lambda: paper.active("sim") not in ("", first), "the switch")
    shop.state("Ready", ready=1)
    paper.held.add(first)
    shop.run("delete", "model", "sim", "--wait=false")
    until(lambda: paper.replicas("sim") == 0, "the new one's last replica")
    until(lambda: options(paper, first).get("autoscaling_config", {}).get("initial_replicas") == 0, "the old one's")
    assert shop.get("rayservice"), "it must stay as long as streams run"
    paper.held.clear()
    until(lambda: not shop.get("model"), "the Model's end")


def options(paper: Paper, cluster: str) -> dict[str, Any]:
    """Those that its Serve deployment was given last."""
    last = [config for each, config in paper.puts if each == cluster][-1]
    found: dict[str, Any] = last["applications"][0]["deployments"][0]
    return found


@pytest.mark.parametrize("waits", [False, True], ids=["settled", "while a change waits"])
def test_hands_on_the_pods_are_put_right_and_begin_no_cluster(
    start: Start, shop: Shop, paper: Paper, waits: bool
) -> None:
    shop.apply(model(image=GOOD))
    start()
    shop.state("Ready", ready=1)
    first = paper.active("sim")
    if waits:
        shop.apply(model(image=BETTER))
        until(lambda: "ReplacementPending" in shop.condition("Progressing"), "the question")
    asked = shop.get("rayservice")["spec"]["rayClusterConfig"]
    head = "/spec/rayClusterConfig/headGroupSpec/template/spec"
    worker = "/spec/rayClusterConfig/workerGroupSpecs/0/template/spec"
    hands = [
        {"op": "add", "path": f"{head}/containers/0/securityContext/privileged", "value": True},
        {"op": "add", "path": f"{head}/containers/0/env/0", "value": {"name": "MINE", "value": "1"}},
        {"op": "add", "path": f"{worker}/priorityClassName", "value": "high"},
        {"op": "replace", "path": f"{worker}/containers/0/image", "value": "evil"},
    ]
    shop.run("patch", "rayservice", "sim", "--type=json", "-p", json.dumps(hands))
    until(lambda: shop.get("rayservice")["spec"]["rayClusterConfig"] == asked, "our pods")
    until(lambda: not paper.pending("sim") and paper.dropped("sim") == [], "no second cluster")
    shop.run("scale", "model/sim", "--replicas=2")
    until(lambda: paper.replicas("sim") == 2, "two replicas")
    assert paper.active("sim") == first


def test_a_sleeping_model_is_replaced_unasked_and_wakes_with_its_old_pods_if_that_fails(
    start: Start, shop: Shop, paper: Paper
) -> None:
    zero = {"autoscaling": {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 10}}
    shop.apply(model(image=GOOD, **zero))
    start()
    shop.state("Sleeping", ready=0)
    first = paper.active("sim")
    paper.unpullable.add(TYPO)
    shop.apply(model(image=TYPO, **zero))
    second = until(lambda: paper.pending("sim"), "a second cluster")
    wanted = (datetime.now(UTC) + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = json.dumps({"status": {"wakeRequestedAt": wanted}})
    shop.run("patch", "modeluse", "sim", "--subresource=status", "--type=merge", "-p", told)
    shop.state("Ready", ready=1)
    assert paper.active("sim") == first
    until(lambda: not paper.pending("sim") and paper.dropped("sim") == [], "the second cluster's end")
    assert paper.made["sim"] == [first, second]
    until(lambda: "ReplacementPending" in shop.condition("Progressing"), "the question")
    assert "ReplacementPending" in shop.run("get", "models"), "as one sees at a glance"
