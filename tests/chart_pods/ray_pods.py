"""Ray's own head and worker as pods of the node, as KubeRay makes them of a Model: there is no KubeRay here.

Their programs are this machine's, mounted from it: an image with Ray would take minutes to be made and loaded. So the
node has to be this machine.
"""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any, Self

from cloudach_controller.resources.form import ray_cluster
from cloudach_controller.resources.ray_service import application, serve_config
from cloudach_controller.settings import parse
from cloudach_model_api.model import Model

from tests.chart_pods.node import NAMESPACE, Node
from tests.support.processes import ROOT
from tests.support.waiting import until

CLUSTER = "tiny-x7k2p"
HEAD, WORKER = "ray-head", "ray-worker"
TOKEN = secrets.token_hex(32)
_PROGRAMS = ("/usr", sys.base_prefix, str(ROOT))
_OPTIONS = " ".join(
    (
        "--block --object-store-memory=80000000 --metrics-export-port=8080",
        "--dashboard-agent-listen-port=52365 --dashboard-agent-grpc-port=52366 --runtime-env-agent-port=52367",
    )
)
"""With ports that are named, Ray does not give up after 15 s because its agent is slow to tell its own."""
_CALL = """
import sys, httpx
verb, url, token = sys.argv[1:]
answer = httpx.request(verb, url, content=sys.stdin.read() or None, timeout=60, trust_env=False,
                       headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
answer.raise_for_status()
print(answer.text)
"""


def services() -> list[dict[str, Any]]:
    """Before head and worker. KubeRay's own has no address, and its pods are found by DNS, which is not here."""
    ports = {HEAD: {"gcs": 6379, "dashboard": 8265}, WORKER: {"serve": 8000}}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "selector": {"app": name},
                "publishNotReadyAddresses": name == HEAD,
                "ports": [{"name": each, "port": port} for each, port in ports[name].items()],
            },
        }
        for name in (HEAD, WORKER)
    ]


class RayPods:
    """`with RayPods(…)`: a RayCluster of a Model, and its pods. `addresses`: cluster IPs by the names of Services."""

    def __init__(self, node: Node, model: str, addresses: dict[str, str]) -> None:
        self._node, self._addresses = node, addresses
        self._model = Model.from_object(node.get("model", model))
        host = "demo-cloudach-raystore"
        self._settings = parse(f"gcs_store: {{address: '{host}.{NAMESPACE}.svc:6379'}}")
        self._config = ray_cluster(self._model, self._settings)
        self._aliases = [{"ip": addresses[host], "hostnames": [f"{host}.{NAMESPACE}.svc"]}]

    def __enter__(self) -> Self:
        labels = {
            "ray.io/originated-from-cr-name": self._model.metadata.name,
            "ray.io/originated-from-crd": "RayService",
        }
        meta = {"name": CLUSTER, "namespace": NAMESPACE, "labels": labels}
        self._standard("privileged")
        self._node.apply({"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": meta, "spec": self._config})
        self._uid = self._node.get("raycluster", CLUSTER)["metadata"]["uid"]
        return self

    def begin(self) -> None:
        """Raises TimeoutError when the head does not get ready."""
        self.make_head()
        # KubeRay has a container before the worker that waits for it.
        until(lambda: self._is_ready(HEAD), within_s=300)
        self._make_worker()

    def __exit__(self, *_: object) -> None:
        self._node.kubectl("delete", "pod", HEAD, WORKER, "--grace-period=0", "--force", "--ignore-not-found")
        self._node.kubectl("delete", "raycluster", CLUSTER)
        self._standard("restricted")

    def lose_head(self) -> None:
        """With all its processes at once."""
        self._node.kubectl("delete", "pod", HEAD, "--grace-period=0", "--force")

    def worker(self) -> tuple[str, int]:
        """Which pod it is, and how often it was started again."""
        pod = self._node.get("pod", WORKER)
        return pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]

    def answers(self) -> bool:
        """Whether requests get to the worker."""
        return self._is_ready(WORKER)

    def _is_ready(self, name: str) -> bool:
        return any(one["ready"] for one in self._node.get("pod", name)["status"].get("containerStatuses", []))

    def _standard(self, name: str) -> None:
        """Pods of a Model pass "restricted"; these mount this machine's programs."""
        label = f"pod-security.kubernetes.io/enforce={name}"
        self._node.kubectl("label", "namespace", NAMESPACE, "--overwrite", label)

    def make_head(self) -> None:
        """With what KubeRay adds for a cluster that keeps its state."""
        options = self._config["gcsFaultToleranceOptions"]
        user, password = options["redisUsername"], options["redisPassword"]
        added = [
            {"name": "RAY_REDIS_ADDRESS", "value": options["redisAddress"]},
            {"name": "RAY_external_storage_namespace", "value": self._uid},
            {"name": "REDIS_USERNAME", **user},
            {"name": "REDIS_PASSWORD", **password},
        ]
        login = '--redis-username="$REDIS_USERNAME" --redis-password="$REDIS_PASSWORD"'
        start = f"--head --port=6379 --dashboard-host=0.0.0.0 --num-cpus=0 --no-monitor {login}"
        self._make(HEAD, self._config["headGroupSpec"]["template"], start, added)

    def _make_worker(self) -> None:
        added = [{"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "600"}]
        template = self._config["workerGroupSpecs"][0]["template"]
        self._make(WORKER, template, f"--address={self._addresses[HEAD]}:6379 --num-cpus=2", added)

    def serve(self) -> None:
        """The configuration that KubeRay sends. Raises CommandFailed."""
        app = application(self._model)
        config = json.loads(serve_config(self._model, app, {"num_replicas": 1}))
        config["applications"][0]["args"]["options"]["rate"] = 60
        self._ask("PUT", json.dumps(config))

    def replicas(self) -> list[dict[str, Any]]:
        """As the head tells them. Raises CommandFailed while it is away."""
        applications = json.loads(self._ask("GET"))["applications"]
        deployments = [one for app in applications.values() for one in app["deployments"].values()]
        told = [replica for one in deployments for replica in one["replicas"]]
        return [{name: one.get(name) for name in ("replica_id", "pid", "node_ip", "state")} for one in told]

    def _ask(self, verb: str, body: str = "") -> str:
        url = f"http://{self._addresses[HEAD]}:8265/api/serve/applications/"
        return self._node.run(sys.executable, "-c", _CALL, verb, url, TOKEN, stdin=body)

    def _make(self, name: str, template: dict[str, Any], start: str, added: list[dict[str, Any]]) -> None:
        made = template["spec"]["containers"][0]
        of_store = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "HOME": "/tmp"}  # noqa: S108
        env = [one for one in made["env"] if "valueFrom" not in one]
        env += [*added, *({"name": each, "value": value} for each, value in of_store.items())]
        ray = Path(sys.prefix) / "bin" / "ray"
        mounts = [{"name": f"programs-{number}", "mountPath": path} for number, path in enumerate(_PROGRAMS)]
        volumes: list[dict[str, Any]] = [
            {"name": mount["name"], "hostPath": {"path": mount["mountPath"]}} for mount in mounts
        ]
        container = {
            "name": name,
            "image": "ghcr.io/cloudach/simulator:test",
            "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", f"ulimit -n 65536; exec {ray} start {start} {_OPTIONS}"],
            "env": env,
            "readinessProbe": made["readinessProbe"],
            "securityContext": {"runAsUser": 0},  # who may read this machine's programs
            "volumeMounts": [
                *({**mount, "readOnly": True} for mount in mounts),
                {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            ],
        }
        pod = {
            "containers": [container],
            "volumes": [*volumes, {"name": "shm", "emptyDir": {"medium": "Memory"}}],
            "hostAliases": self._aliases,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
        }
        labels = {"app": name, "ray.io/cluster": CLUSTER}
        meta = {"name": name, "namespace": NAMESPACE, "labels": labels}
        self._node.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod})
