"""A KubeRay whose replicas exist on paper: there as soon as the serve config asks for them, or when told to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.support.kube import Cluster

from .api import RayServices

_POLL_S = 0.05
PATIENCE_S = 120.0  # only keeps a test from hanging


class Paper:
    """`held[name]`: replicas that go nevertheless stay (streams run on). `broken[name]`: what Serve says went wrong.
    `applied[name]`: every serve config it has seen, oldest first. `tokens`: the bearer tokens it was asked with."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._api = RayServices(cluster, namespace)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._uids: dict[str, str] = {}
        self._running: dict[str, int] = {}
        self._leaving: dict[str, int] = {}
        self.held: set[str] = set()
        self.broken: dict[str, str] = {}
        self.applied: dict[str, list[dict[str, Any]]] = {}
        self.clusters: dict[str, list[dict[str, Any]]] = {}
        self.tokens: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True),
            threading.Thread(target=self._watch, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dashboard_url(self) -> str:
        """For the controller's setting ray.dashboard_url."""
        return f"http://127.0.0.1:{self._server.server_port}/{{name}}"

    def replicas(self, name: str) -> int:
        with self._lock:
            return self._running.get(name, 0)

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join(10)
        self._server.server_close()
        self._api.close()

    def _watch(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(httpx.HTTPError):  # the API server may be away
                self._look(self._api.list())
            self._stop.wait(_POLL_S)

    def _look(self, services: list[dict[str, Any]]) -> None:
        there = {one["metadata"]["name"] for one in services}
        with self._lock:
            for gone in set(self._running) - there:
                del self._running[gone]
                self._leaving.pop(gone, None)
        for one in services:
            self._reconcile(one)

    def _reconcile(self, service: dict[str, Any]) -> None:
        name, spec = service["metadata"]["name"], service["spec"]
        config = json.loads(spec["serveConfigV2"])
        wanted = _wanted(config)
        with self._lock:
            configs = self.applied.setdefault(name, [])
            if not configs or configs[-1] != config:
                configs.append(config)
            clusters = self.clusters.setdefault(name, [])
            if not clusters or clusters[-1] != spec["rayClusterConfig"]:
                clusters.append(spec["rayClusterConfig"])
            if name in self.broken:
                wanted = 0
            running = self._running.get(name, 0)
            self._leaving[name] = self._leaving.get(name, 0) + max(running - wanted, 0)
            if name not in self.held:
                self._leaving[name] = 0
            self._running[name] = wanted
            number = len(clusters)
        self._api.write_status(
            name, {"activeServiceStatus": {"rayClusterName": f"{name}-{number}"}, "numServeEndpoints": wanted}
        )

    def _applications(self, name: str) -> dict[str, Any]:
        with self._lock:
            config = self.applied[name][-1]
            states = ["RUNNING"] * self._running.get(name, 0) + ["STOPPING"] * self._leaving.get(name, 0)
            broken = self.broken.get(name, "")
        (app,) = config["applications"]
        deployment = {
            "status": "DEPLOY_FAILED" if broken else "HEALTHY",
            "message": broken,
            "target_num_replicas": _wanted(config),
            "replicas": [{"state": state} for state in states],
        }
        told = {
            "status": "DEPLOY_FAILED" if broken else "RUNNING",
            "message": broken,
            "deployments": {app["deployments"][0]["name"]: deployment},
            "deployed_app_config": app,
        }
        return {"applications": {app["name"]: told}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        paper = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name, _, rest = self.path.lstrip("/").partition("/")
                known = name in paper.applied and rest == "api/serve/applications/"
                paper.tokens.add((self.headers.get("Authorization") or "").removeprefix("Bearer "))
                body = json.dumps(paper._applications(name) if known else {}).encode()
                self.send_response(200 if known else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _wanted(config: dict[str, Any]) -> int:
    override = config["applications"][0]["deployments"][0]
    if "autoscaling_config" in override:
        return int(override["autoscaling_config"]["initial_replicas"])
    return int(override["num_replicas"])


@contextlib.contextmanager
def paper_kuberay(cluster: Cluster, namespace: str) -> Iterator[Paper]:
    paper = Paper(cluster, namespace)
    try:
        yield paper
    finally:
        paper.close()


def until(condition: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S) -> Any:
    """What the condition gives when it is true at last."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
