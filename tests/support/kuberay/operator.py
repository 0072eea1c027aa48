"""The KubeRay operator for one RayService, with a real Ray on this machine in the place of its pods.

As KubeRay does: it starts a cluster for the RayService, PUTs serveConfigV2 to the dashboard whenever the text changes,
writes the applications' states into the status, and ends the cluster with the RayService. The cluster is pending until
all applications are RUNNING; an endpoint is counted some time later.
Not as KubeRay does: no pods, one machine, and the addresses of `http_options` are this machine's. The services are
there from the start. A changed rayClusterConfig is counted in `cluster_changes` and otherwise passed over; what
a second cluster does is in `paper`.
"""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.kube import Cluster
from tests.support.kubectl import CommandFailed

from . import manifests
from .api import KubeApi
from .local_ray import LocalRay, free_ports
from .reconcile import set_conditions

_POLL_S = 0.3
_READY_AFTER_S = 2.0  # from RUNNING to an endpoint; seen with the real operator: 4 to 9 s


class Operator:
    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster, self._namespace, self.name = cluster, namespace, name
        self._api = KubeApi(cluster, namespace)
        self._ports, self._dashboard_port = free_ports()
        self._stop = threading.Event()
        self._ray: LocalRay | None = None
        self._put = ""
        self._active = False
        self._running_since: float | None = None
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
        found: dict[int, str] = {}
        for app in (self._ray.applications() if self._ray is not None else {}).values():
            for deployment in app["deployments"].values():
                found |= {one["pid"]: one["state"] for one in deployment["replicas"] if one.get("pid")}
        return found

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                services = [one for one in self._api.ray_services() if one["metadata"]["name"] == self.name]
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
            cluster = f"{self.name}-local"
            self._api.keep(manifests.head_service(service, cluster, of_cluster=True))
            self._api.keep(manifests.head_service(service, cluster, of_cluster=False))
            self._api.keep(manifests.serve_service(service, cluster))
        if spec["rayClusterConfig"] != self._cluster_config:
            self._cluster_config = spec["rayClusterConfig"]
            self.cluster_changes += 1
        if spec["serveConfigV2"] != self._put:
            config = json.loads(spec["serveConfigV2"])
            self._ray.put(config)
            self._put = spec["serveConfigV2"]
            self.puts.append(config)
        status = copy.deepcopy(service.get("status") or {})
        self._tell(status, self._ray.applications())
        status["observedGeneration"] = service["metadata"]["generation"]
        set_conditions(status, service["metadata"]["generation"], status.get("numServeEndpoints", 0))
        if status != service.get("status"):
            self._api.write_status(service, status)

    def _tell(self, status: dict[str, Any], applications: dict[str, Any]) -> None:
        """The one cluster is pending until all is RUNNING; its endpoint follows when a probe finds a replica."""
        told, replicas = {}, 0
        for name, app in applications.items():
            deployments = {
                one["name"]: {"status": one["status"], "message": one["message"]} for one in app["deployments"].values()
            }
            told[name] = {
                "status": app["status"],
                "message": app["message"],
                "serveDeploymentStatuses": deployments,
            }
            replicas += sum(
                replica["state"] == "RUNNING" for one in app["deployments"].values() for replica in one["replicas"]
            )
        part = {"rayClusterName": f"{self.name}-local", "applicationStatuses": told}
        self._active = self._active or (bool(told) and all(app["status"] == "RUNNING" for app in told.values()))
        status["activeServiceStatus"], status["pendingServiceStatus"] = (part, {}) if self._active else ({}, part)
        self._running_since = (self._running_since or time.monotonic()) if replicas and self._active else None
        status.pop("numServeEndpoints", None)
        if self._running_since is not None and time.monotonic() - self._running_since >= _READY_AFTER_S:
            status["numServeEndpoints"] = 1  # the machine is one node, and so one pod

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
            self._active, self._running_since = False, None


@contextmanager
def kuberay_operator(cluster: Cluster, namespace: str, name: str) -> Iterator[Operator]:
    operator = Operator(cluster, namespace, name)
    operator.start()
    try:
        yield operator
    finally:
        operator.close()
