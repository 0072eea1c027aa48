"""A RayCluster on paper: its pods, what kubelets make of them, and Ray Serve in it. No I/O.

Where the behaviour comes from: "seen" is KubeRay's operator (main of 2026-08-19) with Ray 2.60 on a one-node cluster.
Kinder than the real one: replicas start at once, a worker pod goes together with its replica (there it stays idle
for `idleTimeoutSeconds`), and arguments roll at once. The operator itself reads no Secret; the real one does for each
request to a dashboard.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .manifests import SERVE_PORT, head_service_name, token_secret

Address = tuple[str, int]


@dataclass
class Steering:
    """What a test says. Each set holds names of RayServices, or of single RayClusters, unless said otherwise."""

    held: set[str] = field(default_factory=set)
    """Replicas that go nevertheless stay, because streams run on."""
    broken: dict[str, str] = field(default_factory=dict)
    """What Serve says went wrong: no replica comes, and those that run stay (seen with arguments that fail)."""
    stalled: set[str] = field(default_factory=set)
    """New replicas stay STARTING: a first cluster, or a second one, stays pending as long."""
    unready: set[str] = field(default_factory=set)
    """Worker pods that are not ready yet stay so, although Serve says RUNNING: no endpoint comes."""
    unpullable: set[str] = field(default_factory=set)
    """Images that cannot be pulled."""
    unschedulable: set[str] = field(default_factory=set)
    """New worker pods find no node."""
    shut_out: set[str] = field(default_factory=set)
    """The operator does not reach the dashboards, as where a NetworkPolicy is in the way."""
    ready_after_s: float = 0.3
    """From RUNNING to the worker's readiness. Seen: 6 to 9 s at a start, 4 to 6 s at a wake, 7 s at a replacement."""
    gcs_lost_s: float = 1.0
    """From a lost head to the end of its workers, without GCS fault tolerance. Seen: 24 s."""
    cleanup_s: float = 0.5
    """How long the pod of a redis-cleanup Job runs."""


@dataclass
class Pod:
    name: str
    node_type: str
    image: str
    container: str
    address: Address
    state: str = "STARTING"
    """Of the replica in it, as Serve's dashboard has it."""
    running: bool = False
    ready: bool = False
    trouble: str = ""
    """`image`, `node` or `secret`: what keeps it from running."""
    failed: bool = False
    replica_since: float | None = None
    orphaned_at: float | None = None
    """When the head that it belonged to was lost."""
    uid: str = ""
    """Empty until the API server has it."""
    token_secret: str = ""
    """The Secret that has to be there before it runs."""
    token: str = ""
    """By which Ray in it is locked: as the Secret was when the pod started."""
    written: dict[str, Any] = field(default_factory=dict)

    def status(self) -> dict[str, Any]:
        """As a kubelet tells it."""
        if self.trouble == "node":
            words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
            unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
            return {"phase": "Pending", "conditions": [unscheduled]}
        waiting = {"waiting": {"reason": "ContainerCreating"}}
        if self.trouble == "image":
            message = f'Back-off pulling image "{self.image}"'
            waiting = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
        if self.trouble == "secret":
            message = f'secret "{self.token_secret}" not found'
            waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": message}}
        state: dict[str, Any] = {"running": {}} if self.running else waiting
        if self.failed:
            state = {"terminated": {"exitCode": 1, "reason": "Error"}}
        conditions = [
            {"type": kind, "status": str(holds)}
            for kind, holds in (("PodScheduled", True), ("ContainersReady", self.ready), ("Ready", self.ready))
        ]
        container = {
            "name": self.container,
            "image": self.image,
            "imageID": "",
            "ready": self.ready,
            "restartCount": 0,
            "state": state,
        }
        phase = "Failed" if self.failed else "Running" if self.running else "Pending"
        at = {"podIP": self.address[0], "podIPs": [{"ip": self.address[0]}]}
        return {"phase": phase, "conditions": conditions, "containerStatuses": [container], **at}


@dataclass
class RayCluster:
    name: str
    service: str
    """Of the RayService."""
    config: dict[str, Any]
    """rayClusterConfig that it was made from."""
    addresses: Iterator[Address]
    ray_service: dict[str, Any]
    """As it was when the cluster was made."""
    head: Pod | None = None
    workers: list[Pod] = field(default_factory=list)
    serve: dict[str, Any] | None = None
    """The Serve config that was PUT last; a head that is lost without GCS fault tolerance takes it along."""
    provisioned: bool = False
    refused: str = ""
    """What the API server said instead of making a pod."""
    leaving: list[Pod] = field(default_factory=list)
    """Pods to be deleted."""

    @property
    def pods(self) -> list[Pod]:
        return [*([self.head] if self.head is not None else []), *self.workers]

    @property
    def fault_tolerant(self) -> bool:
        return "gcsFaultToleranceOptions" in self.config

    @property
    def head_ready(self) -> bool:
        return self.head is not None and self.head.ready

    @property
    def replicas(self) -> list[Pod]:
        """Those that this Serve knows of."""
        return [pod for pod in self.workers if pod.orphaned_at is None]

    @property
    def endpoints(self) -> list[Pod]:
        return [pod for pod in self.workers if pod.ready]

    def put(self, config: dict[str, Any]) -> None:
        self.serve = config

    def lose(self, pod: Pod, now: float) -> None:
        """Somebody has deleted the pod."""
        if pod is not self.head:
            self.workers.remove(pod)
            return
        self.head = None
        if not self.fault_tolerant:
            self.serve = None
            for worker in self.workers:
                worker.orphaned_at = worker.orphaned_at or now

    def tick(self, now: float, steering: Steering, *, operating: bool) -> None:
        """`operating`: KubeRay's operator runs, which makes and deletes the pods."""
        self._end_orphans(now, steering, operating)
        if operating and self.head is None:
            self.head = self._pod("head")
        if self.serve is not None and self.head_ready:
            self._scale(steering, operating)
        if self._steered(steering.held) is False:
            for pod in [pod for pod in self.workers if pod.state == "STOPPING"]:
                self._remove(pod)
        for pod in self.pods:
            if pod.uid:
                self._run(pod, now, steering)
        self.provisioned = self.provisioned or (self.head_ready and all(pod.ready for pod in self.workers))

    def _end_orphans(self, now: float, steering: Steering, operating: bool) -> None:
        for pod in list(self.workers):
            if pod.failed and operating and pod.written.get("phase") == "Failed":
                self._remove(pod)
            elif pod.orphaned_at is not None and now - pod.orphaned_at >= steering.gcs_lost_s:
                pod.failed, pod.running, pod.ready = True, False, False

    def _scale(self, steering: Steering, operating: bool) -> None:
        alive = [pod for pod in self.replicas if pod.state != "STOPPING"]
        wanted = wanted_replicas(self.serve)
        if self._said(steering.broken):
            return
        for pod in alive[wanted:]:
            pod.state = "STOPPING"
        if operating:
            self.workers += [self._pod("worker") for _ in range(wanted - len(alive))]

    def _run(self, pod: Pod, now: float, steering: Steering) -> None:
        if pod.failed:
            return
        if not pod.running:
            pod.trouble = "image" if pod.image in steering.unpullable else ""
            if pod.node_type == "worker" and self._steered(steering.unschedulable):
                pod.trouble = "node"
            if not pod.trouble and pod.token_secret and not pod.token:
                pod.trouble = "secret"
            pod.running = not pod.trouble
        if pod.node_type == "head":
            pod.ready = pod.running
            return
        if pod.running and pod.state == "STARTING" and not self._steered(steering.stalled):
            pod.state, pod.replica_since = "RUNNING", now
        if pod.state == "STOPPING":
            pod.ready = False  # the proxy of a node without a replica that stays is drained, and says so to probes
        elif pod.replica_since is not None and not pod.ready and not self._steered(steering.unready):
            pod.ready = now - pod.replica_since >= steering.ready_after_s

    def _remove(self, pod: Pod) -> None:
        self.workers.remove(pod)
        self.leaving.append(pod)

    def _pod(self, node_type: str) -> Pod:
        group = self.config["workerGroupSpecs"][0] if node_type == "worker" else self.config["headGroupSpec"]
        container = group["template"]["spec"]["containers"][0]
        part = "head" if node_type == "head" else f"{group['groupName']}-worker"
        address = (f"10.9.9.{secrets.randbelow(250) + 1}", SERVE_PORT) if node_type == "head" else next(self.addresses)
        name, secret = f"{self.name}-{part}-{suffix()}", token_secret(self.config)
        return Pod(name, node_type, container.get("image", ""), container["name"], address, token_secret=secret)

    def _steered(self, names: set[str]) -> bool:
        return self.name in names or self.service in names

    def _said(self, said: dict[str, str]) -> str:
        return said.get(self.name) or said.get(self.service) or ""

    def applications(self, steering: Steering) -> dict[str, Any]:
        """Returns the answer of Ray 2.60 to `GET /api/serve/applications/`, with what the controller reads."""
        if self.serve is None:
            return {"applications": {}}
        broken = self._said(steering.broken)
        wanted = wanted_replicas(self.serve)
        states = [pod.state for pod in self.replicas]
        settled = states == ["RUNNING"] * wanted
        (app,) = self.serve["applications"]
        moving = "DOWNSCALING" if len(states) > wanted else "UPSCALING"
        deployment = {
            "status": "DEPLOY_FAILED" if broken else "HEALTHY" if settled else moving,
            "message": broken,
            "target_num_replicas": wanted,
            "replicas": [{"state": state} for state in states],
        }
        told = {
            "status": "DEPLOY_FAILED" if broken else "RUNNING" if settled else "DEPLOYING",
            "message": broken,
            "deployments": {app["deployments"][0]["name"]: deployment},
            "deployed_app_config": app,
        }
        return {"applications": {app["name"]: told}}

    def status(self) -> dict[str, Any]:
        """`rayClusterStatus`: `calculateStatus` in raycluster_controller.go."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        head = str(self.head_ready)
        conditions = [
            {
                "type": "HeadPodReady",
                "status": head,
                "reason": "HeadPodRunningAndReady" if self.head_ready else "ContainersNotReady",
            },
            {
                "type": "RayClusterProvisioned",
                "status": str(self.provisioned),
                "reason": "AllPodRunningAndReadyFirstTime" if self.provisioned else "RayClusterPodsProvisioning",
            },
        ]
        if self.refused:
            conditions.append(
                {
                    "type": "ReplicaFailure",
                    "status": "True",
                    "reason": "FailedCreateWorkerPod" if self.head else "FailedCreateHeadPod",
                    "message": self.refused,
                }
            )
        return {
            "conditions": [{"message": "", "lastTransitionTime": now, **one} for one in conditions],
            "head": {
                "podName": self.head.name if self.head else "",
                "podIP": self.head.address[0] if self.head else "",
                "serviceName": head_service_name(self.name),
            },
            "desiredWorkerReplicas": len(self.workers),
            "readyWorkerReplicas": len(self.endpoints),
            **({"state": "ready"} if self.provisioned else {}),
            **({"reason": self.refused} if self.refused else {}),
        }


def wanted_replicas(config: dict[str, Any] | None) -> int:
    if config is None:
        return 0
    override = config["applications"][0]["deployments"][0]
    if "autoscaling_config" in override:
        return int(override["autoscaling_config"]["initial_replicas"])
    return int(override["num_replicas"])


def suffix() -> str:
    """Five characters, as `rand.String(5)` of Kubernetes' apimachinery."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))


def paper_addresses() -> Iterator[Address]:
    """Nobody is there. Other addresses may be given to a stand-in whose pods are to answer."""
    base = secrets.randbelow(200) + 10
    for number in itertools.count(1):
        yield f"10.{base}.{number // 250 % 250}.{number % 250 + 1}", SERVE_PORT
