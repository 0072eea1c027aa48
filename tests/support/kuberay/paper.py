"""KubeRay's operator, kubelets and Ray on paper, over the RayServices, pods, services and EndpointSlices of a real API
server. What is left out or kinder than the real thing stands in world.py and reconcile.py, with the sources.

How a test steers it (`paper` is a Paper; names are those of RayServices or of single RayClusters):

    paper.unready.add("sim")        workers that come are not ready: RUNNING, but no endpoint; discard() lets them be
    paper.stalled.add("sim")        replicas that come stay STARTING: a new cluster stays pending
    paper.broken["sim"] = "words"   Serve says DEPLOY_FAILED with these words; what runs goes on
    paper.held.add("sim")           replicas that go stay STOPPING, as with streams that run on
    paper.unpullable.add("x:2")     pods with this image stay in ImagePullBackOff
    paper.unschedulable.add("sim")  workers that come find no node
    paper.stop_operator(), paper.start_operator()
                                    between them pods and Ray go on, and no RayService is looked at; then its memory
                                    (Serve configs, deletion times) is empty
    paper.shut_out.add("sim")       the operator does not reach the dashboards of its clusters
    paper.lose_head("sim")          the active cluster's head pod goes; to lose any other pod, delete it by kubectl
    paper.active("sim"), paper.pending("sim"), paper.dropped("sim")
                                    the RayClusters that there are, by name: "" and [] for none
    paper.replicas("sim")           how many replicas are RUNNING in the cluster that the services lead to
    paper.applied["sim"]            every Serve config that was PUT to any of its clusters, oldest first
    paper.puts                      the same as pairs of RayCluster and config, of all RayServices
    paper.clusters["sim"]           the rayClusterConfig of every cluster that was made, oldest first
    paper.made["sim"]               their names
    paper.tokens                    the bearer tokens that dashboards were asked with

Times are short ones (`ready_after_s` and others, see Steering) and may be set.
The pods get addresses where nobody is; `Paper(..., addresses=...)` gives them others, with a port for each.
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from tests.support.kube import Cluster

from . import manifests
from .api import KubeApi
from .dashboards import dashboards
from .reconcile import Memory, ShutOut, differs, reconcile
from .world import Address, Pod, RayCluster, Steering, paper_addresses, suffix

_POLL_S = 0.05
PATIENCE_S = 120.0  # only keeps a test from hanging


class Paper(Steering):
    def __init__(self, cluster: Cluster, namespace: str, *, addresses: Iterator[Address] | None = None) -> None:
        super().__init__()
        self._api = KubeApi(cluster, namespace)
        self._controllers = cluster.makes_slices
        self._addresses = addresses or paper_addresses()
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._operating = True
        self._memory = Memory()
        self._clusters: dict[str, RayCluster] = {}
        self._services: dict[str, dict[str, Any]] = {}
        self._points_to: dict[str, str] = {}
        self._slices: dict[str, dict[str, Any]] = {}
        self._to_delete: dict[tuple[str, str], float] = {}
        self.applied: dict[str, list[dict[str, Any]]] = {}
        self.puts: list[tuple[str, dict[str, Any]]] = []
        self.clusters: dict[str, list[dict[str, Any]]] = {}
        self.made: dict[str, list[str]] = {}
        self.tokens: set[str] = set()
        self.trouble = ""
        """What the API server said last instead of doing something; it is tried again."""
        self._server = dashboards(self._behind, self._ask, self._put_by_pod, self._locked, self.tokens)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True),
            threading.Thread(target=self._watch, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dashboard_url(self) -> str:
        """For the controller's setting ray.dashboard_url."""
        return f"http://127.0.0.1:{self._server.server_port}/{{head}}"

    def dashboard_of(self, service: str) -> str:
        """Base URL of the dashboard behind a head service."""
        return f"http://127.0.0.1:{self._server.server_port}/{service}"

    def active(self, name: str) -> str:
        return self._there(name, "active")

    def pending(self, name: str) -> str:
        return self._there(name, "pending")

    def dropped(self, name: str) -> list[str]:
        kept = (self.active(name), self.pending(name))
        with self._lock:
            return [each.name for each in self._clusters.values() if each.service == name and each.name not in kept]

    def replicas(self, name: str) -> int:
        with self._lock:
            cluster = self._clusters.get(self._points_to.get(name, ""))
            return 0 if cluster is None else sum(pod.state == "RUNNING" for pod in cluster.replicas)

    def pods(self, ray_cluster: str) -> list[str]:
        """Names of its pods, the head first."""
        with self._lock:
            return [pod.name for pod in self._clusters[ray_cluster].pods]

    def stop_operator(self) -> None:
        with self._lock:
            self._operating = False

    def start_operator(self) -> None:
        with self._lock:
            self._memory, self._operating = Memory(), True

    def lose_head(self, name: str) -> None:
        with self._lock:
            cluster = self._clusters[self.active(name)]
            assert cluster.head is not None
            head = cluster.head.name
        self._api.delete("Pod", head)

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join(10)
        self._server.server_close()
        with contextlib.suppress(httpx.HTTPError):
            self._api.delete_all_made()
        self._api.close()

    def _there(self, name: str, part: str) -> str:
        with self._lock:
            status = self._services.get(name, {}).get("status") or {}
            found = str((status.get(f"{part}ServiceStatus") or {}).get("rayClusterName") or "")
            return found if found in self._clusters else ""

    def _watch(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._look()
            except httpx.HTTPError as error:  # the API server may be away
                self.trouble = str(error)
            # At most a third of a core, however many RayServices there are.
            self._stop.wait(max(_POLL_S, 2 * (time.monotonic() - began)))

    def _look(self) -> None:
        services = {one["metadata"]["name"]: one for one in self._api.ray_services()}
        pods = {one["metadata"]["name"] for one in self._api.pods()}
        now = time.monotonic()
        self._start_with_tokens()
        with self._lock:
            gone, self._services = self._services.keys() - services.keys(), services
            for name in [each.name for each in self._clusters.values() if each.service not in services]:
                self._drop(name)
            for name in gone:
                self._forget(name)
            for cluster in self._clusters.values():
                for pod in [pod for pod in cluster.pods if pod.uid and pod.name not in pods]:
                    cluster.lose(pod, now)
                cluster.tick(now, self, operating=self._operating)
        for cluster in list(self._clusters.values()):
            self._try(self._sync_pods, cluster)
        if self._operating:
            for service in services.values():
                self._try(self._reconcile, service, now)
        for service in services.values():
            self._try(self._sync_slices, service)
        self._clean_up(now)

    def _start_with_tokens(self) -> None:
        """A kubelet reads the Secret of a pod when it starts the container, and tries again while there is none."""
        with self._lock:
            pods = [pod for each in self._clusters.values() for pod in each.pods]
        for pod in pods:
            if pod.uid and pod.token_secret and not pod.token:
                pod.token = self._api.secret_entry(pod.token_secret, "auth_token")

    def _try(self, step: Callable[..., None], *of: Any) -> None:
        """One object that the API server refuses keeps no other one waiting."""
        try:
            step(*of)
        except httpx.HTTPStatusError as error:
            self.trouble = str(error)

    def _reconcile(self, service: dict[str, Any], now: float) -> None:
        name, meta = service["metadata"]["name"], service["metadata"]
        if meta.get("deletionTimestamp"):
            self._finish(service)
            return
        if manifests.FINALIZER not in (meta.get("finalizers") or []):
            self._api.update(manifests.as_kuberay_writes(service))
            return
        with self._lock:
            of_it = {each.name: each for each in self._clusters.values() if each.service == name}
            points_to = self._points_to.get(name, "")
            try:
                outcome = reconcile(service, of_it, self._memory, self, points_to=points_to, now=now)
            except ShutOut:
                return
        for cluster in outcome.delete:
            with self._lock:
                self._drop(cluster)
        if outcome.create:
            self._make(outcome.create, service)
        if outcome.put:
            self._put(outcome.put, json.loads(service["spec"]["serveConfigV2"]))
            self._memory.serve_configs[outcome.put] = service["spec"]["serveConfigV2"]
        if outcome.point_to:
            self._api.keep(manifests.head_service(service, outcome.point_to, of_cluster=False))
            self._api.keep(manifests.serve_service(service, outcome.point_to))
            with self._lock:
                self._points_to[name] = outcome.point_to
        if differs(service.get("status") or {}, outcome.status):
            with self._lock:  # lest a test sees a Model follow before it sees what the Model follows
                self._api.write_status(service, outcome.status)
                service["status"] = outcome.status

    def _make(self, name: str, service: dict[str, Any]) -> None:
        config = copy.deepcopy(service["spec"]["rayClusterConfig"])
        self._api.keep(manifests.head_service(service, name, of_cluster=True))
        with self._lock:
            of = service["metadata"]["name"]
            self._clusters[name] = RayCluster(name, of, config, self._addresses, service)
            self.clusters.setdefault(of, []).append(config)
            self.made.setdefault(of, []).append(name)

    def _put(self, name: str, config: dict[str, Any]) -> None:
        with self._lock:
            cluster = self._clusters[name]
            cluster.put(config)
            self.applied.setdefault(cluster.service, []).append(config)
            self.puts.append((name, config))

    def _finish(self, service: dict[str, Any]) -> None:
        """A RayService that is deleted: its clusters go at once, and then its finalizer."""
        meta = service["metadata"]
        with self._lock:
            for cluster in [each.name for each in self._clusters.values() if each.service == meta["name"]]:
                self._drop(cluster)
        rest = [each for each in meta.get("finalizers") or [] if each != manifests.FINALIZER]
        if rest != (meta.get("finalizers") or []):
            self._api.update({**service, "metadata": {**meta, "finalizers": rest}})

    def _drop(self, name: str) -> None:
        """The RayCluster's end; the API server hears of it in `_clean_up`."""
        cluster = self._clusters.pop(name)
        for pod in [*cluster.pods, *cluster.leaving]:
            self._to_delete["Pod", pod.name] = 0.0
        self._to_delete["Service", manifests.head_service_name(name)] = 0.0
        if cluster.fault_tolerant:
            self._empty_store(cluster)

    def _forget(self, name: str) -> None:
        """What garbage collection takes away with a RayService."""
        self._points_to.pop(name, None)
        for service in (manifests.head_service_name(name), f"{name}-serve-svc"):
            self._to_delete["Service", service] = 0.0
        for slice_name in [each for each in self._slices if each.startswith(f"{name}-serve-svc-")]:
            del self._slices[slice_name]
            self._to_delete["EndpointSlice", slice_name] = 0.0

    def _empty_store(self, cluster: RayCluster) -> None:
        reference = manifests.owner(cluster.ray_service)
        job, name = f"{cluster.name}-redis-cleanup", f"{cluster.name}-redis-cleanup-{suffix()}"
        template = manifests.pod(name, cluster.name, cluster.config, "redis-cleanup", reference, excluded=True)
        container = template["spec"]["containers"][0]
        with contextlib.suppress(httpx.HTTPError):  # as in a namespace that is going
            self._api.create(manifests.cleanup_job(cluster.name, template, reference))
            uid = self._api.create(template)["metadata"]["uid"]
            pod = Pod(name, "redis-cleanup", container["image"], container["name"], ("10.0.0.1", 0), uid=uid)
            pod.running = pod.ready = True
            self._api.pod_status(name, pod.status())
        self._to_delete["Pod", name] = self._to_delete["Job", job] = time.monotonic() + self.cleanup_s

    def _clean_up(self, now: float) -> None:
        for (kind, name), when in list(self._to_delete.items()):
            if now >= when:
                self._api.delete(kind, name)
                del self._to_delete[kind, name]

    def _sync_pods(self, cluster: RayCluster) -> None:
        excluded = bool(cluster.ray_service["spec"].get("excludeHeadPodFromServeSvc"))
        reference = manifests.owner(cluster.ray_service)
        for pod in cluster.leaving:
            self._api.delete("Pod", pod.name)
        cluster.leaving.clear()
        for pod in cluster.pods:
            if not pod.uid and self._operating:
                body = manifests.pod(
                    pod.name, cluster.name, cluster.config, pod.node_type, reference, excluded=excluded
                )
                try:
                    pod.uid = self._api.create(body)["metadata"]["uid"]
                    cluster.refused = ""
                except httpx.HTTPStatusError as error:
                    cluster.refused = _message(error.response)
                    continue
            status = pod.status()
            if pod.uid and status != pod.written:
                self._api.pod_status(pod.name, status)
                pod.written = status

    def _sync_slices(self, service: dict[str, Any]) -> None:
        """What Kubernetes' own controller makes of the serve service, where it runs; here a slice for each port."""
        name = service["metadata"]["name"]
        if name not in self._points_to or self._controllers:
            return
        endpoints: dict[int, list[dict[str, Any]]] = {manifests.SERVE_PORT: []}
        cluster = self._clusters.get(self._points_to[name])
        for pod in cluster.workers if cluster is not None else []:
            if pod.uid and pod.running:
                address, port = pod.address
                one = manifests.endpoint(address, pod.name, pod.uid, self._api.namespace, ready=pod.ready)
                endpoints.setdefault(port, []).append(one)
        prefix = f"{name}-serve-svc-"
        wanted = {f"{prefix}{port}": (port, found) for port, found in endpoints.items()}
        for slice_name in [each for each in self._slices if each.startswith(prefix)]:
            wanted.setdefault(slice_name, (int(slice_name.removeprefix(prefix)), []))
        for slice_name, (port, found) in wanted.items():
            body = manifests.endpoint_slice(slice_name, prefix[:-1], port, found, manifests.owner(service))
            if self._slices.get(slice_name) != body:
                self._api.keep(body)
                self._slices[slice_name] = body

    def _behind(self, service: str) -> str:
        with self._lock:
            for cluster in self._clusters.values():
                own = service == manifests.head_service_name(cluster.name)
                moving = service in (cluster.service, manifests.head_service_name(cluster.service))
                if own or (moving and self._points_to.get(cluster.service) == cluster.name):
                    return cluster.head.name if cluster.head is not None else ""
        return ""

    def _on(self, head: str) -> RayCluster | None:
        for cluster in self._clusters.values():
            if cluster.head is not None and cluster.head.name == head and cluster.head_ready:
                return cluster
        return None

    def _ask(self, head: str) -> dict[str, Any] | None:
        with self._lock:
            cluster = self._on(head)
            return None if cluster is None else cluster.applications(self)

    def _locked(self, head: str, token: str) -> bool:
        with self._lock:
            cluster = self._on(head)
            pod = cluster.head if cluster is not None else None
            return pod is not None and bool(pod.token_secret) and pod.token != token

    def _put_by_pod(self, head: str, config: dict[str, Any]) -> bool:
        """Somebody else than the operator does."""
        with self._lock:
            cluster = self._on(head)
            if cluster is not None:
                self._put(cluster.name, config)
            return cluster is not None


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError):
        return answer.text


@contextlib.contextmanager
def paper_kuberay(cluster: Cluster, namespace: str, *, addresses: Iterator[Address] | None = None) -> Iterator[Paper]:
    paper = Paper(cluster, namespace, addresses=addresses)
    try:
        yield paper
    finally:
        paper.close()
