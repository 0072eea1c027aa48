"""Objects that are in a Model's way: of its name and another's, and API servers that do not take what it needs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudach_controller.decide.plan import plan
from cloudach_controller.decide.replicas import Demand
from cloudach_controller.settings import parse
from cloudach_model_api import Model

from tests.controller.shop import Shop, model
from tests.support.accounts import NAMESPACE
from tests.support.kube import Cluster
from tests.support.waiting import until

from .conftest import Start

pytestmark = pytest.mark.timeout(600)

SOMEBODY = {"apiVersion": "v1", "kind": "ConfigMap", "name": "somebody", "uid": "11111111-1111-1111-1111-111111111111"}


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)


def ray_service(**metadata: Any) -> dict[str, Any]:
    """One that works, of the name `sim`, with nothing that says whose it is."""
    obj = model()
    obj["metadata"] |= {"uid": "1", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    settings = parse("ray: {token_auth: false}\ninference: {engine_keys: false}")
    now = datetime.now(UTC)
    made = plan(Model.from_object(obj), Demand("running", 1), None, settings, target=None, now=now).manifest
    assert made is not None
    return {**copy.deepcopy(made), "metadata": {"name": "sim", "namespace": NAMESPACE, **metadata}}


@pytest.fixture
def left(shop: Shop) -> Iterator[None]:
    yield
    shop.run("delete", "rayservice,networkpolicy", "--all", "--ignore-not-found")


@pytest.mark.usefixtures("paper", "left")
@pytest.mark.parametrize("metadata", [{}, {"ownerReferences": [SOMEBODY], "labels": {"cloudach.dev/model": "sim"}}])
def test_a_ray_service_of_another_is_left_alone(start: Start, shop: Shop, metadata: dict[str, Any]) -> None:
    shop.apply(ray_service(**metadata))
    until(lambda: shop.get("rayservice")["metadata"].get("finalizers"), "what KubeRay writes into each one")
    before = shop.get("rayservice")
    start()
    shop.apply(model())
    until(lambda: shop.condition("Degraded").startswith("True NameTaken"), "the condition")
    assert "There is a RayService sim, and it belongs to" in shop.condition("Degraded")
    assert shop.status()["state"] == "Failed"
    assert shop.condition("Ready").startswith("False")
    shop.run("scale", "model/sim", "--replicas=2")
    until(lambda: {one["observedGeneration"] for one in shop.status()["conditions"]} == {2}, "another look")
    assert "observedGeneration" not in shop.status(), "its spec is not in force"
    shop.run("delete", "model", "sim", "--timeout=120s")
    after = shop.get("rayservice")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert (after["spec"], after["metadata"].get("labels")) == (before["spec"], before["metadata"].get("labels"))
    assert "deletionTimestamp" not in after["metadata"]


@pytest.mark.usefixtures("paper", "left")
def test_a_model_from_a_backup_takes_up_its_ray_service(start: Start, shop: Shop) -> None:
    """Both have other uids than before, and the RayService names the Model's old one."""
    old = {"apiVersion": "cloudach.dev/v1alpha1", "kind": "Model", "name": "sim", "controller": True}
    old["uid"] = "22222222-2222-2222-2222-222222222222"
    labels = {"cloudach.dev/model": "sim", "app.kubernetes.io/managed-by": "cloudach-controller"}
    shop.apply(ray_service(ownerReferences=[old], labels=labels))
    uid = shop.get("rayservice")["metadata"]["uid"]
    start(ray={"token_auth": False}, inference={"engine_keys": False})
    shop.apply(model())
    shop.state("Ready", ready=1)
    found = shop.get("rayservice")["metadata"]
    assert found["uid"] == uid
    mine = shop.get("model")["metadata"]["uid"]
    assert mine in [one["uid"] for one in found["ownerReferences"]]


@pytest.mark.usefixtures("paper")
def test_labels_that_somebody_took_away_come_back(start: Start, shop: Shop) -> None:
    start()
    shop.apply(model())
    shop.state("Ready", ready=1)
    uid = shop.get("rayservice")["metadata"]["uid"]
    shop.run("label", "rayservice", "sim", "cloudach.dev/model-")
    until(lambda: shop.get("rayservice")["metadata"]["labels"].get("cloudach.dev/model"), "the label")
    assert shop.get("rayservice")["metadata"]["uid"] == uid


@pytest.mark.usefixtures("paper", "left")
def test_a_network_policy_of_another_is_left_alone_and_no_engine_is_open_for_it(start: Start, shop: Shop) -> None:
    spec = {"podSelector": {"matchLabels": {"app": "theirs"}}, "policyTypes": ["Ingress"]}
    metadata = {"name": "sim.engines", "namespace": NAMESPACE}
    shop.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    start(network_policy={"enabled": True})
    shop.apply(model())
    until(lambda: "networkpolicies with the name sim.engines" in shop.condition("Degraded"), "the condition")
    assert shop.get("networkpolicy", "sim.engines")["spec"] == spec
    assert not shop.get("rayservice")
    shop.run("delete", "networkpolicy", "sim.engines")
    shop.state("Ready", ready=1)


@pytest.fixture
def failing_webhook(shop: Shop) -> Iterator[None]:
    """An admission webhook where nobody listens."""
    rule = {"apiGroups": ["ray.io"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["rayservices"]}
    hook = {
        "name": "policy.example.com",
        "clientConfig": {"url": f"https://127.0.0.1:1/{'long' * 600}"},
        "rules": [rule],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = "ValidatingWebhookConfiguration"
    made = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "broken"}}
    shop.apply({**made, "webhooks": [hook]})
    yield
    shop.kubectl("delete", kind, "broken", "--ignore-not-found")


@pytest.mark.usefixtures("paper", "failing_webhook")
def test_what_an_api_server_says_instead_of_taking_a_ray_service_stands_in_a_condition(
    start: Start, shop: Shop
) -> None:
    start()
    shop.apply(model())
    until(lambda: shop.condition("Degraded").startswith("True RayServiceFailed"), "the condition")
    said = shop.condition("Degraded")
    assert "policy.example.com" in said
    assert len(said) < 1200
    assert "observedGeneration" not in shop.status(), "its spec is not in force"
    assert shop.status()["state"] == "Failed"
    shop.kubectl("delete", "ValidatingWebhookConfiguration", "broken")
    shop.state("Ready", ready=1)
