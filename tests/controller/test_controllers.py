"""Controllers that come, go, compete and lose their API server."""

from __future__ import annotations

import json
import signal
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.controller.shop import Shop, model
from tests.support.accounts import NAMESPACE
from tests.support.kube import Cluster
from tests.support.kubectl import await_kinds
from tests.support.kuberay.paper import PATIENCE_S, Paper
from tests.support.processes import Server
from tests.support.release import rayservice_crd
from tests.support.waiting import until

from .conftest import Start

pytestmark = pytest.mark.timeout(900)

SHORT = {"duration_s": 8, "renew_s": 6}  # a Lease that is soon lost


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)


def holder(shop: Shop) -> str:
    return str(shop.get("lease", "cloudach-controller").get("spec", {}).get("holderIdentity", ""))


def leads(controller: Server) -> bool:
    return "cloudach_controller_leader 1.0" in metrics(controller)


def ready(controller: Server) -> int:
    return httpx.get(f"{controller.url}/readyz", timeout=PATIENCE_S).status_code


def metrics(controller: Server) -> str:
    return httpx.get(f"{controller.url}/metrics", timeout=PATIENCE_S).text


def logged(controller: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in controller.output.splitlines() if line.startswith("{")]


def test_a_restart_changes_nothing(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(replicas=2))
    first = start()
    shop.state("Ready", ready=2)
    assert first.stop(PATIENCE_S) == 0
    before = shop.get("rayservice")["metadata"]["resourceVersion"], shop.status()
    configs = len(paper.applied["sim"])
    shop.run("scale", "model/sim", "--replicas=3")  # while nobody looks
    start()
    shop.state("Ready", ready=3)
    assert len(paper.applied["sim"]) == configs + 1
    assert before[1]["conditions"][0]["lastTransitionTime"] == shop.status()["conditions"][0]["lastTransitionTime"]


def test_events_outlive_the_controller_and_say_what_was_made(start: Start, shop: Shop) -> None:
    """The same event by the next controller is neither lost nor taken for the first one's."""
    shop.apply(model("holder", aliases=["chat"]))
    first = start()
    shop.state("Ready", "holder")
    shop.apply(model())
    shop.state("Ready")
    until(lambda: shop.events(reason="RayServiceCreated"), "the event that it was made")
    assert not shop.events(reason="AsExpected"), "nothing has been wrong"

    def refused() -> int:
        return len(shop.events(reason="NameTaken"))

    shop.apply(model(aliases=["chat"]))
    until(lambda: refused() == 1, "the event")
    shop.apply(model())
    until(lambda: shop.events(reason="AsExpected"), "the event that all is well again")
    first.stop(PATIENCE_S)
    start()
    shop.apply(model(aliases=["chat"]))
    until(lambda: refused() == 2, "the event by the next controller")
    assert {one["count"] for one in shop.events(reason="NameTaken")} == {1}


def test_of_two_controllers_one_works_and_the_other_takes_over(start: Start, shop: Shop) -> None:
    first = start()
    until(lambda: leads(first), "the first leads")
    second = start()
    until(lambda: ready(second) == 200, "the second is ready to take over")
    assert not leads(second)
    led = holder(shop)
    shop.apply(model())
    shop.state("Ready")
    assert first.stop(PATIENCE_S) == 0
    until(lambda: leads(second), "the second leads")  # long before the Lease would run out
    assert holder(shop) != led
    shop.run("scale", "model/sim", "--replicas=2")
    shop.state("Ready", ready=2)


def test_sigterm_gives_the_lease_back(start: Start, shop: Shop) -> None:
    controller = start()
    until(lambda: holder(shop), "a leader")
    controller.process.send_signal(signal.SIGTERM)
    assert controller.process.wait(PATIENCE_S) == 0
    assert holder(shop) == ""


def test_a_killed_leader_is_replaced_when_its_lease_runs_out(start: Start, shop: Shop) -> None:
    first = start(leader_election=SHORT)
    until(lambda: leads(first), "the first leads")
    first.kill()
    left = shop.get("lease", "cloudach-controller")["spec"]
    second = start(leader_election=SHORT)
    until(lambda: any(line["event"] == "leading" for line in logged(second)), "the second leads")
    waited, *_ = (line for line in logged(second) if line["event"] in ("waiting for the lease", "leading"))
    assert (waited["event"], waited["holder"]) == ("waiting for the lease", left["holderIdentity"])
    taken = shop.get("lease", "cloudach-controller")["spec"]
    since = datetime.fromisoformat(taken["acquireTime"]) - datetime.fromisoformat(left["renewTime"])
    assert since.total_seconds() > SHORT["duration_s"]


def test_a_leader_whose_lease_was_taken_stops(start: Start, shop: Shop) -> None:
    controller = start()
    until(lambda: leads(controller), "a leader")
    lease = shop.get("lease", "cloudach-controller")
    patch = {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 60}}
    shop.run("patch", "lease", lease["metadata"]["name"], "--type=merge", "-p", json.dumps(patch))
    assert controller.process.wait(PATIENCE_S) == 1
    assert "lease lost" in controller.output


def test_an_api_server_that_was_away(start: Start, shop: Shop, cluster: Cluster, paper: Paper) -> None:
    """Longer than the Lease can be renewed: whoever restarts the controller finds it working again."""
    shop.apply(model())
    start(leader_election={"enabled": False})
    shop.state("Ready", ready=1)
    cluster.stop()
    cluster.start()
    shop.run("scale", "model/sim", "--replicas=2")
    shop.state("Ready", ready=2)
    assert len(paper.clusters["sim"]) == 1


def test_a_leader_that_cannot_renew_stops(start: Start, cluster: Cluster) -> None:
    controller = start(leader_election=SHORT)
    until(lambda: leads(controller), "a leader")
    cluster.stop()
    try:
        assert controller.process.wait(PATIENCE_S) == 1
    finally:
        cluster.start()


def test_without_kuberay_the_models_say_so(start: Start, shop: Shop, cluster: Cluster) -> None:
    cluster.kubectl("delete", "crd", "rayservices.ray.io")
    try:
        shop.apply(model())
        controller = start()
        until(lambda: shop.condition("Degraded").startswith("True KubeRayMissing"), "the condition")
        assert ready(controller) == 200
    finally:
        cluster.kubectl.apply(rayservice_crd())
        await_kinds(cluster.kubectl, "rayservices.ray.io")
    shop.state("Ready")


def test_what_is_told_of_itself(start: Start, shop: Shop) -> None:
    controller = start()
    shop.apply(model())
    shop.state("Ready")
    assert httpx.get(f"{controller.url}/healthz", timeout=PATIENCE_S).status_code == 200
    told = f'cloudach_model_ready_replicas{{model="sim",namespace="{NAMESPACE}"}} 1.0'
    until(lambda: told in metrics(controller), "the metrics, which follow the status")
    assert {"service": "controller", "event": "RayService changed"}.items() <= next(
        line for line in logged(controller) if line["event"] == "RayService changed"
    ).items()
    shop.run("delete", "model", "sim", "--timeout=150s")
    until(lambda: 'model="sim"' not in metrics(controller), "the metrics' end")


def test_a_controller_of_another_release_leaves_the_models_alone_and_says_so(
    cluster: Cluster, start: Start, shop: Shop, paper: Paper
) -> None:
    shop.apply(model())
    first = start()
    shop.state("Ready", ready=1)
    before = shop.get("rayservice")["spec"]
    # Its own would look otherwise, and both could write without end.
    other = {"namespace": NAMESPACE, "name": "other", "duration_s": 8, "renew_s": 6}
    admin = {"kubeconfig": str(cluster.kubeconfig)}
    second = start(kubernetes=admin, leader_election=other, ray={"stream_limit_s": 100})
    until(lambda: "another controller works on the Models of a namespace" in second.output, "its words")
    assert 'cloudach_controller_namespace_foreign{namespace="serving"} 1.0' in metrics(second)
    answer = httpx.get(f"{second.url}/readyz", timeout=PATIENCE_S)
    assert (answer.status_code, "namespace serving is left alone" in answer.text) == (200, True)
    shop.run("scale", "model/sim", "--replicas=2")
    shop.state("Ready", ready=2)
    assert shop.get("rayservice")["spec"]["rayClusterDeletionDelaySeconds"] == before["rayClusterDeletionDelaySeconds"]
    assert 'cloudach_controller_reconciles_total{result="ok"} 0' not in metrics(first)
    assert 'cloudach_controller_reconciles_total{result="ok"}' not in metrics(second)
