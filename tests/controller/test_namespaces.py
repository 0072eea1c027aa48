"""Namespaces that are deleted, come back and cannot be read, with the chart's rights on a real API server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.controller.shop import model
from tests.support.accounts import ACCOUNT, kubeconfig_of
from tests.support.kube import Cluster, api_server
from tests.support.kubectl import CommandFailed
from tests.support.kuberay.paper import PATIENCE_S, Paper, paper_kuberay
from tests.support.processes import BIN, Server
from tests.support.release import MODEL_SPEC, Helm, prepare
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(900)

OWN, TENANT, OTHER = "own", "tenant", "other"
WATCHED = {"watchNamespaces": [OWN, TENANT, OTHER]}
Start = Callable[[], Server]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with api_server(controllers=True) as running:
        prepare(running)
        yield running


@pytest.fixture
def helm(cluster: Cluster) -> Iterator[Helm]:
    for name in (OWN, TENANT, OTHER):
        namespace(cluster, name)
    with Helm(cluster, OWN) as helm:
        helm.install(WATCHED)
        yield helm


def namespace(cluster: Cluster, name: str) -> None:
    cluster.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


@pytest.fixture
def papers(cluster: Cluster) -> Iterator[dict[str, Paper]]:
    with paper_kuberay(cluster, OTHER) as other, paper_kuberay(cluster, TENANT) as tenant:
        yield {OTHER: other, TENANT: tenant}


@pytest.fixture
def start(helm: Helm, papers: dict[str, Paper], tmp_path: Path) -> Iterator[Start]:
    running: list[Server] = []
    account = kubeconfig_of(helm.cluster, ACCOUNT, OWN)

    def begin() -> Server:
        settings = {
            "listen": {"port": 0},
            "kubernetes": {"kubeconfig": str(account), "namespaces": WATCHED["watchNamespaces"], "retry_max_s": 1},
            "leader_election": {"namespace": OWN, "duration_s": 8, "renew_s": 6, "retry_s": 0.2},
            "ray": {"dashboard_url": papers[OTHER].dashboard_url, "poll_s": 0.1, "steady_poll_s": 0.3},
        }
        path = tmp_path / f"controller-{len(running)}.yaml"
        path.write_text(yaml.safe_dump(settings))
        running.append(Server([BIN / "cloudach-controller", "--config", path]))
        return running[-1]

    yield begin
    for server in running:
        server.stop(PATIENCE_S)
    for name in (OWN, TENANT, OTHER):
        for one in helm.kubectl.run("-n", name, "get", "models", "-o", "name").stdout.split():
            helm.kubectl("-n", name, "patch", one, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
            helm.kubectl("-n", name, "delete", one, "--ignore-not-found")


def apply_model(helm: Helm, name: str, where: str) -> None:
    obj = model(name, drainSeconds=600)
    obj["metadata"]["namespace"] = where
    helm.kubectl.apply(obj, flags=("--validate=false",))


def status(helm: Helm, name: str, where: str) -> dict[str, Any]:
    text = helm.kubectl("-n", where, "get", "model", name, "--ignore-not-found", "-o", "json")
    return (json.loads(text) if text.strip() else {}).get("status") or {}


def is_ready(helm: Helm, name: str, where: str, ready: int) -> bool:
    told = status(helm, name, where)
    return (told.get("state"), told.get("readyReplicas")) == ("Ready", ready)


def there(helm: Helm, name: str) -> bool:
    return bool(helm.kubectl("get", "namespace", name, "--ignore-not-found", "-o", "name").strip())


def asked(controller: Server, path: str) -> tuple[int, str]:
    answer = httpx.get(f"{controller.url}/{path}", timeout=PATIENCE_S)
    return answer.status_code, answer.text


def test_a_watched_namespace_that_is_deleted_holds_nothing_up_and_comes_back(helm: Helm, start: Start) -> None:
    first = start()
    apply_model(helm, "stays", OTHER)
    apply_model(helm, "goes", TENANT)
    until(lambda: is_ready(helm, "stays", OTHER, 1), "the one Model")
    until(lambda: status(helm, "goes", TENANT).get("state"), "the other Model is worked on")
    first.kill()
    helm.kubectl("delete", "namespace", TENANT, "--wait=false")
    roles = ("-n", TENANT, "get", "roles", "-o", "name")
    until(lambda: not helm.kubectl(*roles).strip(), "the end of the Roles in it")
    second = start()
    helm.kubectl("-n", OTHER, "scale", "model/stays", "--replicas=3")
    until(lambda: is_ready(helm, "stays", OTHER, 3), "the Model of a namespace that is still there")
    until(lambda: not there(helm, TENANT), "the end of the namespace")
    code, text = asked(second, "readyz")
    assert (code, text.splitlines()[0]) == (200, "ok")
    assert f"namespace {TENANT} cannot be read: " in text
    readable = f'cloudach_controller_namespace_readable{{namespace="{TENANT}"}}'
    assert f"{readable} 0.0" in asked(second, "metrics")[1]

    notes = helm.upgrade(WATCHED)
    assert f"WARNING: the namespace {TENANT}, which watchNamespaces holds, is not there" in notes
    assert f"namespace {OTHER}" not in notes
    with pytest.raises(CommandFailed, match=f"m is to be in the namespace {TENANT}, which is not there"):
        helm.upgrade({**WATCHED, "models": [{"name": "m", "namespace": TENANT, "spec": MODEL_SPEC}]})

    namespace(helm.cluster, TENANT)
    assert "WARNING: the namespace" not in helm.upgrade(WATCHED)  # it makes its Roles
    apply_model(helm, "goes", TENANT)
    until(lambda: status(helm, "goes", TENANT).get("state"), "the namespace is taken up again")
    assert f"{readable} 1.0" in asked(second, "metrics")[1]
    assert asked(second, "readyz") == (200, "ok\n")


def test_the_leader_that_sees_it_lets_go_at_once(helm: Helm, start: Start) -> None:
    """Although its streams may run on for ten minutes: the namespace takes their pods away."""
    start()
    apply_model(helm, "goes", OTHER)
    until(lambda: is_ready(helm, "goes", OTHER, 1), "the Model")
    helm.kubectl("delete", "namespace", OTHER, "--wait=false")
    until(lambda: not there(helm, OTHER), "the end of the namespace")


def test_the_namespace_of_the_release_is_deleted(helm: Helm, start: Start) -> None:
    """Its Roles, the controller's account and its pod go at the same time as the Models."""
    controller = start()
    apply_model(helm, "goes", OWN)
    until(lambda: status(helm, "goes", OWN).get("state"), "the Model is worked on")
    helm.kubectl("delete", "namespace", OWN, "--wait=false")
    assert controller.stop(PATIENCE_S) == 0  # as the node does, when the pod is deleted
    until(lambda: not there(helm, OWN), "the end of the namespace")
