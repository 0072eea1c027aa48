"""The stand-in for KubeRay does what KubeRay's own operator was seen to do; see tests/support/kuberay."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.support.accounts import NAMESPACE
from tests.support.kube import Cluster
from tests.support.kuberay.manifests import FINALIZER
from tests.support.kuberay.paper import Paper
from tests.support.objects import Objects
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)


def serve_config(replicas: int) -> str:
    deployment = {"name": "engine", "num_replicas": replicas}
    return json.dumps({"applications": [{"name": "model", "deployments": [deployment]}]})


class Service:
    """A RayService, as somebody else than our controller has it."""

    def __init__(self, cluster: Cluster, paper: Paper, **config: Any) -> None:
        self.kubectl, self.paper = cluster.kubectl, paper
        self.objects = Objects(cluster, NAMESPACE)
        self.config: dict[str, Any] = {
            "headGroupSpec": {"template": self._template("ray-head", "image:1")},
            "workerGroupSpecs": [{"groupName": "engines", "template": self._template("ray-worker", "image:1")}],
            **config,
        }

    @staticmethod
    def _template(container: str, image: str) -> dict[str, Any]:
        spec = {"containers": [{"name": container, "image": image}]}
        return {"metadata": {"labels": {"cloudach.dev/model": "x"}}, "spec": spec}

    def apply(self, replicas: int = 1, *, image: str = "image:1", delay_s: int = 960) -> None:
        self.config["workerGroupSpecs"][0]["template"] = self._template("ray-worker", image)
        spec = {
            "serveConfigV2": serve_config(replicas),
            "rayClusterConfig": self.config,
            "excludeHeadPodFromServeSvc": True,
            "rayClusterDeletionDelaySeconds": delay_s,
        }
        metadata = {"name": "x", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/managed-by": "test"}}
        self.kubectl.apply({"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": metadata, "spec": spec})

    def get(self, kind: str = "rayservices", name: str = "x") -> dict[str, Any]:
        return self.objects.get(kind, name)

    def pods(self, *selector: str) -> list[dict[str, Any]]:
        return self.objects.items("pods", labelSelector=",".join(selector))

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get().get("status") or {}
        return found

    def reason(self, kind: str) -> str:
        return next((one["reason"] for one in self.status().get("conditions") or [] if one["type"] == kind), "")

    def until(self, kind: str, reason: str) -> None:
        until(lambda: self.reason(kind) == reason, f"{kind} {reason}")

    def leads_to(self) -> tuple[str, str]:
        """The clusters that the head and the serve service select."""
        found = [self.get("services", f"x-{part}-svc")["spec"]["selector"] for part in ("head", "serve")]
        return found[0]["ray.io/cluster"], found[1]["ray.io/cluster"]

    def ready_endpoints(self) -> int:
        text = self.kubectl("-n", NAMESPACE, "get", "endpointslices", "-o", "json")
        slices = [
            one
            for one in json.loads(text)["items"]
            if one["metadata"]["labels"]["kubernetes.io/service-name"] == "x-serve-svc"
        ]
        return sum(each["conditions"]["ready"] for one in slices for each in one["endpoints"] or ())

    def replicas_of(self, service: str) -> list[str] | None:
        """As the dashboard behind a head service tells them; None: nobody answers."""
        try:
            answer = httpx.get(f"{self.paper.dashboard_of(service)}/api/serve/applications/", trust_env=False)
        except httpx.TransportError:
            return None
        app = answer.json()["applications"].get("model", {"deployments": {"engine": {"replicas": []}}})
        return [one["state"] for one in app["deployments"]["engine"]["replicas"]]

    def delete(self) -> None:
        self.kubectl("-n", NAMESPACE, "delete", "rayservice", "x", "--ignore-not-found")


def test_a_cluster_is_pending_then_active_and_then_has_an_endpoint(cluster: Cluster, paper: Paper) -> None:
    service = Service(cluster, paper)
    paper.stalled.add("x")
    paper.unready.add("x")
    service.apply()
    pending = until(lambda: paper.pending("x"), "a pending cluster")
    assert re.fullmatch(r"x-[a-z0-9]{5}", pending)
    until(lambda: paper.puts, "the Serve config")
    meta = service.get()["metadata"]
    assert (meta["finalizers"], meta["generation"]) == ([FINALIZER], 2)
    assert not service.get("services", "x-serve-svc")
    assert service.replicas_of("x-head-svc") is None
    until(lambda: service.replicas_of(f"{pending}-head-svc") == ["STARTING"], "a replica that starts")
    paper.stalled.clear()
    until(lambda: paper.active("x") == pending, "the switch")
    assert service.leads_to() == (pending, pending)
    assert service.get("services", "x-serve-svc")["spec"]["selector"]["ray.io/serve"] == "true"
    assert service.get("services", "x-head-svc")["spec"]["clusterIP"] == "None"
    assert (service.reason("Ready"), service.reason("UpgradeInProgress")) == ("Initializing", "NoPendingCluster")
    assert "numServeEndpoints" not in service.status(), "zero is left out"
    until(lambda: len(service.pods("ray.io/cluster=" + pending, "ray.io/serve=true")) == 1, "a worker pod")
    assert service.ready_endpoints() == 0
    paper.unready.clear()
    service.until("Ready", "NonZeroServeEndpoints")
    assert service.status()["numServeEndpoints"] == 1
    assert service.ready_endpoints() == 1
    service.delete()
    until(lambda: not service.pods("cloudach.dev/model=x"), "the pods' end")
    until(lambda: not service.get("services", "x-serve-svc"), "the end of what garbage collection takes along")


def test_a_replacement_and_an_operator_that_starts_anew(cluster: Cluster, paper: Paper) -> None:
    service = Service(cluster, paper)
    service.apply()
    service.until("Ready", "NonZeroServeEndpoints")
    old = paper.active("x")
    paper.stalled.add("x")
    service.apply(image="image:2")
    service.until("UpgradeInProgress", "BothActivePendingClustersExist")
    new = until(lambda: paper.pending("x"), "a second cluster")
    until(lambda: [name for name, _ in paper.puts].count(new) == 1, "the first config, for the second cluster")
    service.apply(2, image="image:2")
    until(lambda: [name for name, _ in paper.puts].count(new) == 2, "the second config, for the second cluster")
    assert [name for name, _ in paper.puts].count(old) == 1, "and not for the first"
    assert service.replicas_of("x-head-svc") == ["RUNNING"]
    paper.stalled.clear()
    until(lambda: paper.active("x") == new, "the switch")
    assert service.leads_to() == (new, new)
    until(lambda: service.replicas_of("x-head-svc") == ["RUNNING"] * 2, "the new cluster behind the name")
    assert service.replicas_of(f"{old}-head-svc") == ["RUNNING"], "the old one has its own"
    service.until("UpgradeInProgress", "NoPendingCluster")
    # The delay was read when the cluster was dropped, and the operator has it in its memory alone.
    service.apply(2, image="image:2", delay_s=0)
    generation = service.get()["metadata"]["generation"]
    until(lambda: service.status()["observedGeneration"] == generation, "it is seen")
    assert paper.dropped("x") == [old]
    paper.stop_operator()
    service.apply(3, image="image:2", delay_s=0)
    paper.start_operator()
    until(lambda: paper.dropped("x") == [], "the old cluster's end")
    until(lambda: not service.pods(f"ray.io/cluster={old}"), "its pods' end")
    until(lambda: paper.replicas("x") == 3, "the config that came meanwhile")
    service.delete()


@pytest.mark.parametrize("fault_tolerant", [False, True])
def test_a_lost_head(cluster: Cluster, paper: Paper, fault_tolerant: bool) -> None:
    options = {"gcsFaultToleranceOptions": {"redisAddress": "r:6379"}} if fault_tolerant else {}
    service = Service(cluster, paper, **options)
    service.apply()
    service.until("Ready", "NonZeroServeEndpoints")
    name = paper.active("x")
    head, worker = paper.pods(name)
    paper.lose_head("x")
    until(lambda: (pods := paper.pods(name))[0] != head and len(pods) > 1, "another head")
    until(lambda: service.replicas_of("x-head-svc") == ["RUNNING"], "its applications")
    if fault_tolerant:
        assert paper.pods(name)[1:] == [worker]
        assert len(paper.puts) == 1
    else:
        until(lambda: worker not in paper.pods(name), "the end of the worker without its head")
        assert len(paper.puts) == 2, "the Serve config is given again"
    assert paper.active("x") == name
    paper.cleanup_s = 60
    service.delete()
    left = service.pods(f"ray.io/cluster={name}", "ray.io/node-type=redis-cleanup", "cloudach.dev/model=x")
    assert len(left) == (1 if fault_tolerant else 0)


@pytest.fixture(autouse=True)
def none_is_left(cluster: Cluster, paper: Paper) -> Any:
    yield
    patch = ("patch", "rayservice", "x", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    if cluster.kubectl("-n", NAMESPACE, "get", "rayservice", "x", "--ignore-not-found").strip():
        cluster.kubectl("-n", NAMESPACE, *patch)
        cluster.kubectl("-n", NAMESPACE, "delete", "rayservice", "x", "--ignore-not-found")
