"""Controllers that come, go, compete and lose their API server."""

from __future__ import annotations

import json
import signal

import httpx
import pytest

from tests.charts.cluster import rayservice_crd
from tests.support.kube import Cluster
from tests.support.kuberay.paper import Paper, until
from tests.support.processes import Server

from .conftest import NAMESPACE, Start
from .test_controller import Shop, model

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)


def holder(shop: Shop) -> str:
    return str(shop.get("lease", "cloudach-controller").get("spec", {}).get("holderIdentity", ""))


def leads(controller: Server) -> bool:
    return "cloudach_controller_leader 1.0" in httpx.get(f"{controller.url}/metrics").text


def ready(controller: Server) -> int:
    return httpx.get(f"{controller.url}/readyz").status_code


def test_a_restart_changes_nothing(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(replicas=2))
    first = start()
    shop.state("Ready", ready=2)
    assert first.stop() == 0
    before = shop.get("rayservice")["metadata"]["resourceVersion"], shop.status()
    configs = len(paper.applied["sim"])
    shop.run("scale", "model/sim", "--replicas=3")  # while nobody looks
    start()
    shop.state("Ready", ready=3)
    assert len(paper.applied["sim"]) == configs + 1
    assert before[1]["conditions"][0]["lastTransitionTime"] == shop.status()["conditions"][0]["lastTransitionTime"]


def test_of_two_controllers_one_works_and_the_other_takes_over(start: Start, shop: Shop) -> None:
    first = start()
    until(lambda: leads(first), "the first leads")
    second = start()
    until(lambda: ready(second) == 200, "the second is ready to take over")
    assert not leads(second)
    led = holder(shop)
    shop.apply(model())
    shop.state("Ready")
    assert first.stop() == 0
    until(lambda: leads(second), "the second leads", within_s=10)
    assert holder(shop) != led
    shop.run("scale", "model/sim", "--replicas=2")
    shop.state("Ready", ready=2)


def test_sigterm_gives_the_lease_back(start: Start, shop: Shop) -> None:
    controller = start()
    until(lambda: holder(shop), "a leader")
    controller.process.send_signal(signal.SIGTERM)
    assert controller.process.wait(10) == 0
    assert holder(shop) == ""


def test_a_killed_leader_is_replaced_when_its_lease_runs_out(start: Start, shop: Shop) -> None:
    first = start()
    until(lambda: leads(first), "the first leads")
    first.kill()
    second = start()
    assert not leads(second)
    until(lambda: leads(second), "the second leads", within_s=30)


def test_a_leader_whose_lease_was_taken_stops(start: Start, shop: Shop) -> None:
    controller = start()
    until(lambda: leads(controller), "a leader")
    lease = shop.get("lease", "cloudach-controller")
    patch = {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 60}}
    shop.run("patch", "lease", lease["metadata"]["name"], "--type=merge", "-p", json.dumps(patch))
    assert controller.process.wait(20) == 1
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
    controller = start()
    until(lambda: leads(controller), "a leader")
    cluster.stop()
    try:
        assert controller.process.wait(30) == 1
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
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/rayservices.ray.io")
    shop.state("Ready")


def test_what_is_told_of_itself(start: Start, shop: Shop) -> None:
    controller = start()
    shop.apply(model())
    shop.state("Ready")
    assert httpx.get(f"{controller.url}/healthz").status_code == 200
    text = httpx.get(f"{controller.url}/metrics").text
    assert f'cloudach_model_ready_replicas{{model="sim",namespace="{NAMESPACE}"}} 1.0' in text
    lines = [json.loads(line) for line in controller.output.splitlines() if line.startswith("{")]
    assert {"service": "controller", "event": "applied"}.items() <= next(
        line for line in lines if line["event"] == "applied"
    ).items()
    shop.run("delete", "model", "sim", "--timeout=60s")
    until(lambda: 'model="sim"' not in httpx.get(f"{controller.url}/metrics").text, "the metrics' end")
