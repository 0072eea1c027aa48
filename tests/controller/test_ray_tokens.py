"""Each Model's Ray has a token of its own: in what the controller makes, and where it asks."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from tests.controller.shop import Shop, model
from tests.support.kube import Cluster
from tests.support.kuberay.paper import Paper
from tests.support.waiting import until

from .conftest import Start

pytestmark = pytest.mark.timeout(600)

SHARED, SEED = "cloudach-ray-token", "cloudach-ray-seed"
MANAGED = ("-l", "app.kubernetes.io/managed-by=cloudach-controller")


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    shop = Shop(cluster)
    shop.run("delete", "secrets", *MANAGED, "--ignore-not-found")
    return shop


def secret_of(config: dict[str, Any]) -> str:
    return str(config["authOptions"]["secretName"])


def token(shop: Shop, secret: str) -> str:
    return b64decode(shop.get("secret", secret)["data"]["auth_token"]).decode()


def test_each_model_is_locked_by_a_token_of_its_own(start: Start, shop: Shop, paper: Paper) -> None:
    """An engine that knows its token reaches no other Model's GCS and dashboard with it."""
    for name in ("one", "two"):
        shop.apply(model(name))
    start()
    for name in ("one", "two"):
        shop.state("Ready", name, ready=1)
    secrets = {name: secret_of(paper.clusters[name][0]) for name in ("one", "two")}
    tokens = {name: token(shop, secret) for name, secret in secrets.items()}
    assert len(set(tokens.values())) == 2
    assert shop.get("secret", SEED)["data"]["seed"]
    assert paper.tokens == set(tokens.values()), "each dashboard was asked with its own, and nothing else was sent"
    for name, secret in secrets.items():
        (owner,) = shop.get("secret", secret)["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("Model", shop.get("model", name)["metadata"]["uid"])
    assert not shop.get("secret", SHARED), "nobody needs it"


def test_a_cluster_keeps_the_token_that_it_was_made_with_until_it_is_replaced(
    start: Start, shop: Shop, paper: Paper
) -> None:
    shop.apply(model())
    first = start(ray={"token_per_model": False})
    shop.state("Ready", ready=1)
    assert secret_of(paper.clusters["sim"][0]) == SHARED
    first.stop(60)
    shop.run("delete", "lease", "cloudach-controller", "--ignore-not-found")
    start()
    shop.run("scale", "model/sim", "--replicas=2")
    shop.state("Ready", ready=2)
    assert len(paper.clusters["sim"]) == 1
    old, shared = paper.active("sim"), token(shop, SHARED)
    assert paper.tokens == {shared}
    # While the second cluster is on its way both are there, each with its own.
    paper.stalled.add("sim")
    always = {"cloudach.dev/allow-replacement": "always"}
    changed = {"metadata": {"annotations": always}, "spec": {"image": "example.com/engine:2"}}
    shop.run("patch", "model", "sim", "--type=merge", "-p", json.dumps(changed))
    until(lambda: paper.pending("sim"), "the second cluster")
    shop.run("scale", "model/sim", "--replicas=3")
    paper.stalled.clear()
    until(lambda: paper.active("sim") not in ("", old), "the switch")
    shop.state("Ready", ready=3)
    secret = secret_of(paper.clusters["sim"][1])
    assert secret != SHARED
    until(lambda: paper.tokens == {shared, token(shop, secret)}, "the new cluster's dashboard")
    shop.run("delete", "model", "sim", "--wait=false")
    until(lambda: not shop.get("model"), "the Model's end, with the drain of the cluster that was replaced")
    assert paper.tokens == {shared, token(shop, secret)}


def test_a_copy_that_somebody_deletes_comes_back_before_a_pod_waits_for_it_long(
    start: Start, shop: Shop, paper: Paper
) -> None:
    shop.apply(model())
    start()
    shop.state("Ready", ready=1)
    secret = secret_of(paper.clusters["sim"][0])
    before = token(shop, secret)
    shop.run("delete", "secret", secret)
    paper.lose_head("sim")
    until(lambda: shop.get("secret", secret), "the Secret that the new head needs")
    assert token(shop, secret) == before
    shop.state("Ready", ready=1)
