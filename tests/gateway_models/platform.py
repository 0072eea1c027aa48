"""A whole platform on a real API server: controller, gateway, KubeRay on paper with simulators for its pods."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import yaml

from tests.gateway_models.conftest import NAMESPACE, POD_IP, Site, settings
from tests.support.accounts import ACCOUNT as CONTROLLER
from tests.support.accounts import kubeconfig_of
from tests.support.kube import Cluster
from tests.support.kuberay.paper import Paper, paper_kuberay
from tests.support.objects import Objects
from tests.support.ports import free_port
from tests.support.processes import BIN, Server
from tests.support.stack import Simulator, create_key, start_gateway, start_sim
from tests.support.waiting import until

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


@dataclass
class Platform:
    """`sims`: the engines, in the order in which workers get them; each worker pod has one of its own."""

    cluster: Cluster
    paper: Paper
    sims: list[Simulator]
    site: Site
    config: dict[str, Any]

    @property
    def objects(self) -> Objects:
        return Objects(self.cluster, NAMESPACE)

    def apply(self, name: str, **spec: Any) -> None:
        metadata = {"name": name, "namespace": NAMESPACE}
        body = {"source": {"simulator": {}}, **spec}
        self.cluster.kubectl.apply(
            {"apiVersion": "cloudach.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": body},
            flags=("--validate=false",),
        )

    def patch(self, name: str, **spec: Any) -> None:
        change = json.dumps({"spec": spec})
        self.cluster.kubectl("-n", NAMESPACE, "patch", "model", name, "--type=merge", "-p", change)

    def state(self, name: str) -> str:
        return str(self.objects.get("models", name).get("status", {}).get("state", ""))

    def endpoints(self, name: str) -> list[int]:
        """Ports of the ready pods, as the API server tells them."""
        found = self.objects.items("endpointslices", labelSelector=f"kubernetes.io/service-name={name}-serve-svc")
        return [
            one["ports"][0]["port"]
            for one in found
            for endpoint in one["endpoints"] or ()
            if endpoint["conditions"]["ready"]
        ]

    def engine(self, port: int) -> Simulator:
        return next(sim for sim in self.sims if sim.url.endswith(f":{port}"))

    def asked(self, port: int) -> int:
        """How many requests that engine has had."""
        return self.engine(port).stats()["requests_total"]

    def forget(self, name: str) -> None:
        """At once: what the controller would wait for is not what the tests here are about."""
        kubectl = self.cluster.kubectl
        for kind in ("model", "rayservice", "modeluse"):
            kubectl.run("-n", NAMESPACE, "delete", kind, name, "--ignore-not-found", "--wait=false")
            kubectl.run("-n", NAMESPACE, "patch", kind, name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        until(lambda: name not in self.site.listed() and not self.paper.active(name) and not self.endpoints(name))


@contextmanager
def platform(
    cluster: Cluster, kubeconfig: Path, folder: Path, *, engines: int, controller: Path | None = None, **kubernetes: Any
) -> Iterator[Platform]:
    """`controller`: its kubeconfig, where the API server knows `policy/v1`; without it there are no budgets."""
    with ExitStack() as stack:
        sims = [stack.enter_context(start_sim(rate=60, model="llama", tool_parser="hermes")) for _ in range(engines)]
        addresses = ((POD_IP, int(sim.url.rpartition(":")[2])) for sim in itertools.cycle(sims))
        paper = stack.enter_context(paper_kuberay(cluster, NAMESPACE, addresses=addresses))
        port = free_port()
        config = settings(kubeconfig, port, **kubernetes)
        stack.enter_context(_controller(cluster, paper, folder, controller))
        gateway = stack.enter_context(start_gateway(config))
        site = Site(cluster, sims[0], gateway, create_key(gateway, concurrent_streams=1000), port)
        yield Platform(cluster, paper, sims, site, config)
    kubectl = cluster.kubectl
    kubectl("-n", NAMESPACE, "delete", "networkpolicies", "--all")
    kubectl("-n", NAMESPACE, "delete", "lease", "cloudach-controller", "--ignore-not-found")


@contextmanager
def _controller(cluster: Cluster, paper: Paper, folder: Path, kubeconfig: Path | None) -> Iterator[Server]:
    account = kubeconfig or kubeconfig_of(cluster, CONTROLLER)
    path = folder / "controller.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "listen": {"port": 0},
                "kubernetes": {"kubeconfig": str(account), "namespaces": [NAMESPACE], "retry_max_s": 1},
                "leader_election": {"namespace": NAMESPACE, "duration_s": 600, "renew_s": 500, "retry_s": 0.2},
                "ray": {"dashboard_url": paper.dashboard_url, "poll_s": 0.1, "steady_poll_s": 0.3},
                "inference": {"engine_keys": False},
                "rollout": {"replacement": "at_once", "disruption_budgets": kubeconfig is not None},
            }
        )
    )
    server = Server([BIN / "cloudach-controller", "--config", path])
    try:
        yield server
    finally:
        server.stop(60)


class Client:
    """Asks again and again until it is told to stop. `failures`: whatever its user would call broken."""

    def __init__(self, site: Site, model: str, *, keep: bool, tools: bool, stream: bool = True) -> None:
        self._host = site.gateway.url.removeprefix("http://")
        self._keep = keep
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        fields: dict[str, Any] = {"model": model, "max_tokens": 12, "stream": stream}
        fields["messages"] = [{"role": "user", "content": "Hi"}]
        if tools:
            fields |= {"tools": TOOLS}
        self._body = json.dumps(fields)
        self._headers = {"authorization": f"Bearer {site.key}", "content-type": "application/json"}
        self._stream = stream
        self.answered = 0
        self.failures: list[str] = []
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        connection = HTTPConnection(self._host, timeout=100)
        try:
            while not self._stop.is_set():
                try:
                    problem = self._ask(connection)
                except (OSError, HTTPException) as error:
                    problem = repr(error)
                if problem:
                    self.failures.append(problem)
                else:
                    self.answered += 1
                if problem or not self._keep:
                    connection.close()  # the next request opens it anew
        finally:
            connection.close()

    def _ask(self, connection: HTTPConnection) -> str:
        connection.request("POST", "/v1/chat/completions", self._body, self._headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            return f"{answer.status} {text[:300]}"
        if self._stream:
            good = text.endswith("data: [DONE]\n\n") and '"error"' not in text
        else:
            good = bool(json.loads(text)["choices"][0]["finish_reason"])
        return "" if good else f"an answer that is not whole: {text[-300:]}"


@contextmanager
def crowd(site: Site, model: str, number: int, *, keep: bool) -> Iterator[list[Client]]:
    """Half of them with tools, which nothing can continue. Each of them has been answered before the body begins."""
    clients = [Client(site, model, keep=keep, tools=one % 2 == 0) for one in range(number)]
    try:
        until(lambda: all(client.answered or client.failures for client in clients))
        yield clients
    finally:
        for client in clients:
            client.stop()
        for client in clients:
            client.join()
