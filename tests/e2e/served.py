"""Real vLLM as the controller has it started: a Model's serve config, given to the dashboard of a real Ray."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from cloudach_controller.decide.replicas import demand, override
from cloudach_controller.resources.form import ray_cluster
from cloudach_controller.resources.ray_service import application, serve_config
from cloudach_controller.settings import Settings
from cloudach_model_api import Model

from tests.support.inference import VLLM_PYTHON, base_weights
from tests.support.kuberay.local_ray import LocalRay, free_ports

CPU_ENV = {
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


def model(name: str, **spec: Any) -> Model:
    """On this machine's CPUs: the weights are a folder of the image."""
    engine = {
        "args": {"dtype": "float32", "enforce_eager": True},
        "env": [{"name": name, "value": value} for name, value in CPU_ENV.items()],
    }
    source = {"image": {"path": str(base_weights())}}
    obj = {
        "metadata": {"name": name, "namespace": "e2e", "uid": "u"},
        "spec": {"source": source, "image": "this-machine", "gpu": {"perReplica": 0}, "engine": engine, **spec},
    }
    return Model.from_object(obj)


@dataclass
class Served:
    """`endpoint + "/v1"` is what a client uses, with `api_key`."""

    ray: LocalRay
    api_key: str

    @property
    def endpoint(self) -> str:
        return self.ray.endpoint

    def requests_by_replica(self) -> list[float]:
        """How many each engine has answered to the end; in an order that stays."""
        found = []
        for port in self.ray.replica_ports:
            url, headers = f"http://127.0.0.1:{port}/metrics", {"authorization": f"Bearer {self.api_key}"}
            with suppress(httpx.TransportError):
                text = httpx.get(url, headers=headers, trust_env=False, timeout=20).text
                lines = [line for line in text.splitlines() if line.startswith("vllm:request_success_total{")]
                if lines:
                    found.append(sum(float(line.rpartition(" ")[2]) for line in lines))
        return found

    @property
    def application(self) -> dict[str, Any]:
        (found,) = self.ray.applications().values()
        assert isinstance(found, dict)
        return found

    def replicas(self) -> list[dict[str, Any]]:
        """Those of the engine that answer."""
        engines = [one for name, one in self.application["deployments"].items() if name.startswith("LLMServer:")]
        return [one for engine in engines for one in engine["replicas"] if one["state"] == "RUNNING"]


@contextmanager
def served(of: Model, *, within_s: float = 400) -> Iterator[Served]:
    """Until all its replicas answer; AssertionError with Ray's words where they do not."""
    options = override(of, demand(of, datetime.now(UTC)))
    config: dict[str, Any] = json.loads(serve_config(of, application(of), options))
    ports, dashboard = free_ports()
    api_key = secrets.token_hex(8)
    ray = LocalRay(ports, dashboard, token=secrets.token_hex(32), api_key=api_key, python=VLLM_PYTHON, env=_of_pods(of))
    try:
        ray.put(config)
        found = Served(ray, api_key)
        deadline = time.monotonic() + within_s
        while not (len(found.replicas()) == of.spec.replicas and _answers(found)):
            told = found.application
            assert told["status"] != "DEPLOY_FAILED", f"{told['message']}\n{ray.said(3000)}"
            assert time.monotonic() < deadline, f"{told}\n{ray.said(3000)}"
            time.sleep(0.5)
        yield found
    finally:
        ray.close()


def _of_pods(of: Model) -> dict[str, str]:
    """What the controller sets in the pods of this Model beyond what this machine's Ray has anyway."""
    (group,) = ray_cluster(of, Settings())["workerGroupSpecs"]
    env = group["template"]["spec"]["containers"][0]["env"]
    return {one["name"]: one["value"] for one in env if "ROUTER" in one["name"]}


def _answers(found: Served) -> bool:
    """HAProxy takes a moment to see the replicas."""
    headers = {"authorization": f"Bearer {found.api_key}"}
    try:
        return httpx.get(f"{found.endpoint}/v1/models", headers=headers, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
