"""A controller whose account still has the rights of the release before, as where somebody else makes Roles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controller.shop import Shop, model
from tests.support.accounts import NAMESPACE, kubeconfig_of
from tests.support.helm import RELEASED, helm
from tests.support.kube import Cluster
from tests.support.kuberay.paper import Paper
from tests.support.waiting import until

from .conftest import Start

pytestmark = pytest.mark.timeout(600)

OLD = "old-rights"


def old_rules() -> list[dict[str, Any]]:
    """All that the released chart let its controller do in its own namespace."""
    printed = helm(["template", "demo", str(RELEASED), "--namespace", NAMESPACE, "--set", "preflight=false"])
    roles = [one for one in yaml.safe_load_all(printed) if one and one["kind"] == "Role"]
    return [rule for role in roles if "-controller" in role["metadata"]["name"] for rule in role["rules"]]


@pytest.fixture
def old_account(cluster: Cluster) -> Iterator[Path]:
    metadata = {"name": OLD, "namespace": NAMESPACE}
    group = "rbac.authorization.k8s.io"
    made: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": old_rules()},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": OLD},
            "subjects": [{"kind": "ServiceAccount", "name": OLD, "namespace": NAMESPACE}],
        },
    ]
    for one in made:
        cluster.kubectl.apply(one)
    yield kubeconfig_of(cluster, OLD)
    for one in made:
        cluster.kubectl("-n", NAMESPACE, "delete", f"{one['kind']}/{OLD}", "--ignore-not-found")


def test_models_are_served_meanwhile_and_the_rest_comes_with_the_rights(
    cluster: Cluster, start: Start, shop: Shop, paper: Paper, old_account: Path
) -> None:
    until(lambda: not shop.get("modeluse"), "the end of what other tests have left to the garbage collector")
    shop.apply(model(autoscaling={"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 10}))
    start(kubernetes={"kubeconfig": str(old_account)})
    shop.state("Ready", ready=1)
    assert "engineKey" not in shop.status(), "the key could not be kept"
    assert not shop.get("modeluse")
    more = [
        {"apiGroups": ["cloudach.dev"], "resources": ["modeluses"], "verbs": ["list", "watch", "create"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "patch"]},
    ]
    patch = json.dumps({"rules": [*old_rules(), *more]})
    shop.run("patch", "role", OLD, "--type=merge", "-p", patch)
    until(lambda: shop.get("modeluse"), "the object that gateways mark")
    shop.state("Sleeping", ready=0)
    shop.apply(model("new"))
    shop.state("Ready", "new", ready=1)
    until(lambda: shop.status("new").get("engineKey"), "its key")


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)
