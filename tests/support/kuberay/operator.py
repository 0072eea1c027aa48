"""The KubeRay operator for one RayService, with a real Ray on this machine in the place of its pods.

As KubeRay does: it starts a cluster for the RayService, PUTs serveConfigV2 to the dashboard whenever the text changes,
makes the Services, writes the applications' states into the status, and ends the cluster with the RayService.
Not as KubeRay does: no pods, one machine, and the addresses of `http_options` are this machine's. A changed
rayClusterConfig is counted in `cluster_changes` and otherwise passed over.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.kube import Cluster
from tests.support.kubectl import CommandFailed

from .api import RayServices
from .local_ray import LocalRay, free_ports

_POLL_S = 0.3


class Operator:
    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster, self._namespace, self.name = cluster, namespace, name
        self._api = RayServices(cluster, namespace)
        self._ports, self._dashboard_port = free_ports()
        self._stop = threading.Event()
        self._ray: LocalRay | None = None
        self._put = ""
        self._cluster_config: dict[str, Any] | None = None
        self.cluster_changes = 0
        self.puts: list[dict[str, Any]] = []
        self.trouble = ""  # the last; what went wrong is tried again, as KubeRay does
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports.http}"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self._dashboard_port}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(60)
        self._end_cluster()
        self._api.close()

    def replicas(self) -> dict[int, str]:
        """State of each replica, by its process id."""
        found = {}
        for app in (self._ray.applications() if self._ray is not None else {}).values():
            for deployment in app["deployments"].values():
                found |= {one["pid"]: one["state"] for one in deployment["replicas"] if one.get("pid")}
        return found

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                services = [one for one in self._api.list() if one["metadata"]["name"] == self.name]
                if services:
                    self._reconcile(services[0])
                else:
                    self._end_cluster()
            except (httpx.HTTPError, OSError, CommandFailed, subprocess.TimeoutExpired) as error:
                self.trouble = f"{type(error).__name__}: {error}"
            self._stop.wait(_POLL_S)

    def _reconcile(self, service: dict[str, Any]) -> None:
        spec = service["spec"]
        if self._ray is None:
            self._start_cluster(spec["rayClusterConfig"])
            assert self._ray is not None
            for part, port in (("serve", 8000), ("head", 8265)):
                self._api.make_service(f"{self.name}-{part}-svc", port, service)
        if spec["rayClusterConfig"] != self._cluster_config:
            self._cluster_config = spec["rayClusterConfig"]
            self.cluster_changes += 1
        if spec["serveConfigV2"] != self._put:
            config = json.loads(spec["serveConfigV2"])
            self._ray.put(config)
            self._put = spec["serveConfigV2"]
            self.puts.append(config)
        states = {}
        running = 0
        for name, app in self._ray.applications().items():
            deployments = {
                one["name"]: {"status": one["status"], "message": one["message"]} for one in app["deployments"].values()
            }
            running += app["status"] == "RUNNING"
            states[name] = {
                "status": app["status"],
                "message": app["message"],
                "serveDeploymentStatuses": deployments,
            }
        active = {"rayClusterName": f"{self.name}-local", "applicationStatuses": states}
        condition = {
            "type": "Ready",
            "status": "True" if running else "False",
            "reason": "NonZeroServeEndpoints" if running else "ZeroServeEndpoints",
            "message": "",
            "lastTransitionTime": service["metadata"]["creationTimestamp"],
        }
        self._api.write_status(self.name, {"activeServiceStatus": active, "conditions": [condition]})

    def _start_cluster(self, config: dict[str, Any]) -> None:
        secret = config["authOptions"]["secretName"]
        data = self._cluster.builtin.get("-n", self._namespace, "secret", secret)["data"]
        token = base64.b64decode(data["auth_token"]).decode()
        self._ray = LocalRay(self._ports, self._dashboard_port, token=token, api_key=self._engine_key(config))
        self._cluster_config = config

    def _engine_key(self, config: dict[str, Any]) -> str | None:
        """As the environment of the worker pods has it."""
        (group,) = config["workerGroupSpecs"]
        for variable in group["template"]["spec"]["containers"][0]["env"]:
            if variable["name"] == "VLLM_API_KEY":
                reference = variable["valueFrom"]["secretKeyRef"]
                data = self._cluster.builtin.get("-n", self._namespace, "secret", reference["name"])["data"]
                return base64.b64decode(data[reference["key"]]).decode()
        return None

    def _end_cluster(self) -> None:
        if self._ray is not None:
            self._ray.close()
            self._ray, self._put = None, ""


@contextmanager
def kuberay_operator(cluster: Cluster, namespace: str, name: str) -> Iterator[Operator]:
    operator = Operator(cluster, namespace, name)
    operator.start()
    try:
        yield operator
    finally:
        operator.close()
