"""The real gateway before a real API server, with the service account that the chart gives it.

The tests are the controller here: they write the status of Models. The engine is the simulator.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.kube import Cluster, api_server
from tests.support.kubectl import Kubectl
from tests.support.newer_api import newer_api
from tests.support.objects import Objects
from tests.support.ports import free_port
from tests.support.release import Helm, prepare
from tests.support.stack import Gateway, Simulator, create_key, start_gateway, start_sim
from tests.support.waiting import until

NAMESPACE = "serving"
ACCOUNT = "demo-cloudach-gateway"
POD_IP = "192.0.2.1"  # an API server takes no loopback addresses into EndpointSlices
SLEEPS = {"autoscaling": {"minReplicas": 0, "maxReplicas": 2}}


@dataclass
class Site:
    cluster: Cluster
    sim: Simulator
    gateway: Gateway
    key: str
    metrics_port: int
    made: list[str] = field(default_factory=list)

    @property
    def objects(self) -> Objects:
        return Objects(self.cluster, NAMESPACE)

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    def apply(self, name: str, **spec: Any) -> None:
        metadata = {"name": name, "namespace": NAMESPACE}
        body = {"source": {"simulator": {}}, **spec}
        self.kubectl.apply({"apiVersion": "cloudach.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": body})
        self.made.append(name)
        self._make_use(name)

    def _make_use(self, name: str) -> None:
        """As the controller makes it, but without an owner, because nobody collects garbage here."""
        metadata = {"name": name, "namespace": NAMESPACE, "labels": {"cloudach.dev/model": name}}
        self.kubectl.apply({"apiVersion": "cloudach.dev/v1alpha1", "kind": "ModelUse", "metadata": metadata})

    def status(self, name: str, state: str, *, ready: int = 0, **status: Any) -> None:
        """As the controller writes it."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        condition = {"type": "Ready", "status": "True" if ready else "False", "reason": state, "message": "by a test"}
        known = {"endpoint": self.sim.url, "upstreamModel": "sim"} if ready else {}
        patch = {
            "state": state,
            "readyReplicas": ready,
            "conditions": [{**condition, "lastTransitionTime": now}],
            **known,
            **status,
        }
        self.objects.merge("models", name, {"status": patch}, "status")

    def ready(self, name: str, **spec: Any) -> None:
        """Applied, and served."""
        self.apply(name, **spec)
        self.status(name, "Ready", ready=1)
        until(lambda: self.ask(name).status_code == 200)

    def delete(self, name: str) -> None:
        for kind in ("models", "modeluses"):
            self.objects.delete(kind, name)

    def told(self, name: str) -> dict[str, str]:
        """What gateways have told of the Model's use."""
        found: dict[str, str] = self.objects.get("modeluses", name).get("status", {})
        return found

    def ask(self, model: str, *, key: str | None = None, timeout: float = 150, **fields: Any) -> httpx.Response:
        return httpx.post(
            f"{self.gateway.base_url}/chat/completions",
            headers={"authorization": f"Bearer {key or self.key}"},
            json={"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **fields},
            timeout=timeout,
        )

    def code(self, model: str) -> tuple[int, str | None]:
        answer = self.ask(model)
        return answer.status_code, None if answer.status_code == 200 else answer.json()["error"]["code"]

    def listed(self) -> set[str]:
        headers = {"authorization": f"Bearer {self.key}"}
        answer = httpx.get(f"{self.gateway.base_url}/models", headers=headers, timeout=60)
        return {model["id"] for model in answer.json()["data"]}

    def metric(self, name: str, **labels: str) -> float | None:
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.gateway.output.splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("event") == event]


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """With the CRDs, and with the chart's release `demo` in `serving` for its accounts and rights."""
    with api_server() as running:
        prepare(running)
        with Helm(running, NAMESPACE) as helm:
            helm.install()
            yield running


@contextmanager
def seen_by_gateways(cluster: Cluster, **more: str) -> Iterator[str]:
    """The API server as gateways see it: EndpointSlices as of Kubernetes 1.21, with pods at this machine's address.

    `more`: further versions, as `policy="v1beta1"` instead of `policy/v1`.
    """
    versions = {"discovery.k8s.io/v1": f"discovery.k8s.io/{'v1' if cluster.minor >= 21 else 'v1beta1'}"}
    versions |= {f"{group}/v1": f"{group}/{version}" for group, version in more.items()}
    with newer_api(cluster, versions, addresses={POD_IP: "127.0.0.1"}) as found:
        yield found


@pytest.fixture(scope="package")
def url(cluster: Cluster) -> Iterator[str]:
    with seen_by_gateways(cluster) as found:
        yield found


@pytest.fixture(scope="package")
def kubeconfig(cluster: Cluster, url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return account_at(cluster, url, tmp_path_factory.mktemp("account"))


def account_at(cluster: Cluster, url: str, folder: Path, account: str = ACCOUNT) -> Path:
    """The service account's kubeconfig, with its token in a file, as a pod has it."""
    (folder / f"{account}.token").write_text(cluster.kubectl("-n", NAMESPACE, "create", "token", account).strip())
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "pod",
        "contexts": [{"name": "pod", "context": {"cluster": "here", "user": "account"}}],
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "account", "user": {"tokenFile": f"{account}.token"}}],
    }
    path = folder / f"{account}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def settings(kubeconfig: Path, metrics_port: int, **kubernetes: Any) -> dict[str, Any]:
    watch = {"enabled": True, "namespaces": [NAMESPACE], "kubeconfig": str(kubeconfig), **kubernetes}
    return {
        "listen": {"metrics_port": metrics_port},
        "kubernetes": watch,
        "timeouts": {"heartbeat_s": 0.2, "total_s": 600},
        "limits": {"window_s": 3.0},
    }


@pytest.fixture(scope="module")
def shared(cluster: Cluster, kubeconfig: Path) -> Iterator[Site]:
    port = free_port()
    waits = {"wake_wait_s": 120, "wake_wait_whole_s": 120, "wake_again_s": 30, "in_use_every_s": 2}
    engine = start_sim(rate=200, model="sim", adapter="sim:sql")
    with engine as sim, start_gateway(settings(kubeconfig, port, **waits)) as gateway:
        yield Site(cluster, sim, gateway, create_key(gateway), port)


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    """Without the Models of the test before."""
    shared.made.clear()
    shared.sim.reset()
    yield shared
    for name in shared.made:
        shared.delete(name)
    until(lambda: not shared.listed())
