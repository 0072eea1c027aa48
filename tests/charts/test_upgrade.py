"""helm upgrade on a real API server: from the chart that was released before, and what an upgrade leaves alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.charts.rights import GATEWAY, may
from tests.support.helm import RELEASED, RELEASED_CRDS, VERSION
from tests.support.helm import helm as helm_prints
from tests.support.kube import Cluster, api_server
from tests.support.processes import ROOT
from tests.support.release import CRDS, LATEST, MODEL_SPEC, Helm, prepare, upgrade_crds

pytestmark = pytest.mark.timeout(600)  # servers start

SOURCE = {"source": MODEL_SPEC["source"]}
BY_HELM = ("--server-side=true", "--server-side=false")  # the default of helm 4, and that of helm 3
VALUES: dict[str, Any] = {
    "commonLabels": {"team": "ml"},
    "firstKey": {"create": True, "tenant": "acme"},
    "gateway": {"replicas": 3, "drainSeconds": 90, "config": {"log_level": "debug"}},
    "valkey": {"maxMemory": "256mb", "persistence": {"size": "2Gi"}},
    "models": [
        {"name": "given", "spec": {**SOURCE, "replicas": 2}},
        {"name": "scaled", "spec": {**SOURCE, "replicas": 2}},
        {"name": "left-out", "spec": SOURCE},
    ],
}


@pytest.fixture
def before() -> Iterator[Cluster]:
    """A server with the CRDs as they were released."""
    with api_server() as running:
        prepare(running, RELEASED_CRDS)
        yield running


def replicas(helm: Helm, name: str = "m") -> int:
    return int(helm.get("model", name)["spec"]["replicas"])


def scale(helm: Helm, name: str, count: int) -> None:
    helm.kubectl("-n", helm.namespace, "scale", f"model/{name}", f"--replicas={count}")


def image(helm: Helm, part: str) -> str:
    pod = helm.get("deployment", f"demo-cloudach-{part}")["spec"]["template"]["spec"]
    return str(pod["containers"][0]["image"])


@pytest.mark.parametrize("way", BY_HELM)
def test_from_the_release_before(before: Cluster, way: str) -> None:
    with Helm(before, "serving") as helm:
        helm.install(VALUES, way, chart=RELEASED)
        assert image(helm, "gateway").endswith(f":{RELEASED.stem.rpartition('-')[2]}")
        key = {"key": "c2stMQ==", "id": "MQ=="}  # as its Job would
        helm.kubectl("-n", "serving", "patch", "secret", "demo-cloudach-first-key", "-p", json.dumps({"data": key}))
        password = helm.get("secret", "demo-cloudach-valkey")
        valkey = helm.get("statefulset", "demo-cloudach-valkey")
        scale(helm, "scaled", 5)
        scale(helm, "left-out", 4)

        upgrade_crds(before)
        helm.upgrade(VALUES)

        assert image(helm, "gateway").endswith(f":{VERSION}")
        assert image(helm, "controller").endswith(f":{VERSION}")
        may(helm, "demo-cloudach-gateway", "serving", GATEWAY)  # the right to patch Models is gone
        policies = {one["metadata"]["name"] for one in helm.get("networkpolicies", "-l", LATEST)["items"]}
        assert "demo-cloudach-ray" not in policies, "it would open all Models of the namespace to each other"
        pod = helm.get("deployment", "demo-cloudach-gateway")["spec"]
        assert (pod["replicas"], pod["template"]["spec"]["terminationGracePeriodSeconds"]) == (3, 115)
        assert helm.get("secret", "demo-cloudach-valkey")["data"] == password["data"], (
            "the gateways would be locked out"
        )
        assert helm.get("secret", "demo-cloudach-first-key")["data"] == key
        after = helm.get("statefulset", "demo-cloudach-valkey")
        assert after["metadata"]["uid"] == valkey["metadata"]["uid"]
        assert after["spec"]["volumeClaimTemplates"] == valkey["spec"]["volumeClaimTemplates"]
        counts = {one["metadata"]["name"]: one["spec"]["replicas"] for one in helm.get("models")["items"]}
        assert counts == {"given": 2, "scaled": 5, "left-out": 4}


KEEP = "kubectl -n cloudach annotate statefulset,service,configmap,secret,networkpolicy"
"""How the line in docs/kubernetes.md begins by which the store of Ray's state outlives the way back."""


def test_the_way_back_keeps_the_store_of_rays_state(before: Cluster) -> None:
    """Or heads that use it would end at once, and every engine ten minutes later."""
    docs = (ROOT / "docs" / "kubernetes.md").read_text()
    (line,) = {one.strip() for one in docs.splitlines() if KEEP in one}
    command = line.strip("`").split()[3:]
    with Helm(before, "serving") as helm:
        helm.install(VALUES, chart=RELEASED)
        upgrade_crds(before)
        helm.upgrade(VALUES)

        def store() -> set[str]:
            return {name for name in helm.names() if name.endswith("-raystore")}

        there = store()
        assert {name.partition("/")[0] for name in there} == {
            *("StatefulSet", "Service", "ConfigMap", "Secret", "NetworkPolicy")
        }
        helm.kubectl("-n", "serving", *command)
        helm.rollback()
        assert image(helm, "gateway").endswith(f":{RELEASED.stem.rpartition('-')[2]}")
        assert store() == there
        helm.upgrade(VALUES)  # it is the release's own again
        helm.upgrade({**VALUES, "raystore": {"enabled": False}})
        helm.kubectl("-n", "serving", "delete", *command[1:2], "-l", "app.kubernetes.io/component=raystore")


def test_the_crds_too(before: Cluster) -> None:
    upgrade_crds(before)
    for crd in yaml.safe_load_all(helm_prints(["template", "x", str(CRDS)])):
        served = before.kubectl.get("crd", crd["metadata"]["name"])["spec"]["versions"][0]
        wanted = crd["spec"]["versions"][0]
        assert fields(served["schema"]["openAPIV3Schema"]) == fields(wanted["schema"]["openAPIV3Schema"])


def fields(schema: dict[str, Any], path: str = "") -> set[str]:
    """Dotted paths of all fields."""
    found = {path}
    for name, part in schema.get("properties", {}).items():
        found |= fields(part, f"{path}.{name}")
    return found | (fields(schema["items"], f"{path}[]") if isinstance(schema.get("items"), dict) else set())


MODEL = {"name": "m", "spec": {**SOURCE, "replicas": 2}}
LEFT_OUT = {"name": "m", "spec": SOURCE}
FOUR = {"name": "m", "spec": {**SOURCE, "replicas": 4}}


@pytest.mark.parametrize("way", BY_HELM)
class TestReplicas:
    def test_an_unrelated_upgrade_keeps_what_was_scaled(self, helm: Helm, way: str) -> None:
        helm.install({"models": [MODEL]}, way)
        for count, gateways in ((5, 3), (0, 4), (6, 5)):
            scale(helm, "m", count)
            helm.upgrade({"models": [MODEL], "gateway": {"replicas": gateways}})
            assert replicas(helm) == count
            assert helm.get("deployment", "demo-cloudach-gateway")["spec"]["replicas"] == gateways

    def test_a_new_number_in_values_is_taken(self, helm: Helm, way: str) -> None:
        helm.install({"models": [MODEL]}, way)
        helm.upgrade({"models": [FOUR]})
        assert replicas(helm) == 4

    def test_a_new_number_in_values_goes_before_what_was_scaled(self, helm: Helm, way: str) -> None:
        helm.install({"models": [MODEL]}, way)
        scale(helm, "m", 5)
        helm.upgrade({"models": [FOUR]}, *(("--force-conflicts",) if way.endswith("true") else ()))
        assert replicas(helm) == 4

    def test_left_out_from_the_start(self, helm: Helm, way: str) -> None:
        helm.install({"models": [LEFT_OUT]}, way)
        assert replicas(helm) == 1
        scale(helm, "m", 5)
        helm.upgrade({"models": [LEFT_OUT], "gateway": {"replicas": 3}})
        assert replicas(helm) == 5

    def test_left_out_later_changes_nothing(self, helm: Helm, way: str) -> None:
        """Not back to the default of one."""
        helm.install({"models": [MODEL]}, way)
        helm.upgrade({"models": [LEFT_OUT]})
        helm.upgrade({"models": [LEFT_OUT], "gateway": {"replicas": 3}})
        assert replicas(helm) == 2

    def test_given_later_is_taken(self, helm: Helm, way: str) -> None:
        helm.install({"models": [LEFT_OUT]}, way)
        helm.upgrade({"models": [FOUR]})
        assert replicas(helm) == 4
