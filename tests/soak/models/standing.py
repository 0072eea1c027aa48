"""A KubeRay for a thousand RayServices at once: what stands when all of them run, and no life of its own.

It writes into each RayService what KubeRay writes when its application runs, makes a head pod and a worker pod of it,
and answers as Ray's dashboard. How KubeRay comes there step by step is tests.support.kuberay's part.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.kube import Cluster

_RAY = "/apis/ray.io/v1"
_AT_ONCE = 8  # requests to the API server
_MERGE = {"content-type": "application/merge-patch+json"}


class StandingKubeRay:
    """`asked`: requests to the dashboards so far."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._http = session
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._told: dict[tuple[str, str], int] = {}  # generation of which the status has been written
        self._answers: dict[tuple[str, str], bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked = 0
        self.port = 0

    @property
    def dashboard_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{{namespace}}/{{name}}"

    async def follow(self) -> None:
        """Until cancelled."""
        since = "0"
        while True:
            asked = {"watch": "true", "resourceVersion": since, "timeoutSeconds": "600"}
            async with self._http.get(f"{_RAY}/rayservices", params=asked) as answer:
                answer.raise_for_status()
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._take(event["object"])
                        since = event["object"]["metadata"]["resourceVersion"]

    async def dashboard(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = self._answers.get((request.match_info["namespace"], request.match_info["name"]))
        return web.Response(body=body, content_type="application/json") if body else web.Response(status=503)

    def _take(self, service: dict[str, Any]) -> None:
        meta = service["metadata"]
        own = meta["namespace"], meta["name"]
        if self._told.get(own) == meta["generation"]:
            return
        first, self._told[own] = own not in self._told, meta["generation"]
        self._answers[own] = _applications(service)
        task = asyncio.create_task(self._tell(service, first=first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, service: dict[str, Any], *, first: bool) -> None:
        meta = service["metadata"]
        cluster = f"{meta['name']}-abcde"
        async with self._slots:
            if first:
                for node in ("head", "worker"):
                    await self._pod(service, cluster, node)
            path = f"{_RAY}/namespaces/{meta['namespace']}/rayservices/{meta['name']}/status"
            status = {"status": _status(service, cluster)}
            async with self._http.patch(path, json=status, headers=_MERGE) as answer:
                answer.raise_for_status()

    async def _pod(self, service: dict[str, Any], cluster: str, node: str) -> None:
        config = service["spec"]["rayClusterConfig"]
        group = config["headGroupSpec"] if node == "head" else config["workerGroupSpecs"][0]
        template = group["template"]
        meta = service["metadata"]
        labels = {"ray.io/cluster": cluster, "ray.io/node-type": node, "ray.io/is-ray-node": "yes"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **template.get("metadata", {}),
                "name": f"{cluster}-{node}-fghij",
                "namespace": meta["namespace"],
                "labels": {**template.get("metadata", {}).get("labels", {}), **labels},
            },
            "spec": template["spec"],
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/pods"
        async with self._http.post(path, json=pod) as answer:
            answer.raise_for_status()
        names = [container["name"] for container in template["spec"]["containers"]]
        started = {"running": {"startedAt": _now()}}
        containers = [
            {"name": name, "ready": True, "state": started, "restartCount": 0, "image": "i", "imageID": "i"}
            for name in names
        ]
        conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready", "ContainersReady")]
        status = {"status": {"phase": "Running", "conditions": conditions, "containerStatuses": containers}}
        path = f"{path}/{pod['metadata']['name']}/status"
        async with self._http.patch(path, json=status, headers=_MERGE) as answer:
            answer.raise_for_status()


def _status(service: dict[str, Any], cluster: str) -> dict[str, Any]:
    (app,) = json.loads(service["spec"]["serveConfigV2"])["applications"]
    deployments = {one["name"]: {"status": "HEALTHY"} for one in app["deployments"]}
    applications = {app["name"]: {"status": "RUNNING", "serveDeploymentStatuses": deployments}}
    ready = {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": ""}
    settled = {"type": "UpgradeInProgress", "status": "False", "reason": "NoPendingCluster", "message": ""}
    return {
        "observedGeneration": service["metadata"]["generation"],
        "numServeEndpoints": 1,
        "serviceStatus": "Running",
        "activeServiceStatus": {"rayClusterName": cluster, "applicationStatuses": applications},
        "conditions": [{**one, "lastTransitionTime": _now()} for one in (ready, settled)],
    }


def _applications(service: dict[str, Any]) -> bytes:
    """As Serve tells of them: all replicas that are wanted run."""
    (app,) = json.loads(service["spec"]["serveConfigV2"])["applications"]
    (deployment,) = app["deployments"]
    count = int(deployment.get("num_replicas") or deployment["autoscaling_config"]["initial_replicas"])
    told = {
        "status": "HEALTHY",
        "message": "",
        "target_num_replicas": count,
        "replicas": [{"state": "RUNNING", "replica_id": f"r{number}"} for number in range(count)],
    }
    return json.dumps(
        {
            "applications": {
                app["name"]: {
                    "status": "RUNNING",
                    "message": "",
                    "deployments": {deployment["name"]: told},
                    "deployed_app_config": app,
                }
            }
        }
    ).encode()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@asynccontextmanager
async def standing_kuberay(cluster: Cluster) -> AsyncIterator[StandingKubeRay]:
    connector = aiohttp.TCPConnector(ssl=cluster.tls)
    # No limit in time, because the watch lasts.
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(cluster.url, connector=connector, timeout=timeout) as session:
        kuberay = StandingKubeRay(session)
        app = web.Application()
        app.router.add_get("/{namespace}/{name}/api/serve/applications/", kuberay.dashboard)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        kuberay.port = runner.addresses[0][1]
        following = asyncio.create_task(kuberay.follow())
        try:
            yield kuberay
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await runner.cleanup()
