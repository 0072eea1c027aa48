"""What the stand-ins ask of the API server, as its administrator."""

from __future__ import annotations

import base64
import copy
from typing import Any

import httpx

from tests.support.kube import Cluster

from .manifests import MADE_BY

_MADE = ",".join(f"{name}={value}" for name, value in MADE_BY.items())


class KubeApi:
    """One namespace. All methods raise httpx.HTTPError while the server is away or refuses."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.namespace = namespace
        self._client = httpx.Client(verify=cluster.tls, base_url=cluster.url, trust_env=False, timeout=60)
        core = f"/api/v1/namespaces/{namespace}"
        # Kubernetes 1.20 has no discovery.k8s.io/v1 yet.
        self._discovery = "v1" if cluster.minor >= 21 else "v1beta1"
        self._paths = {
            "RayService": f"/apis/ray.io/v1/namespaces/{namespace}/rayservices",
            "Service": f"{core}/services",
            "Pod": f"{core}/pods",
            "Secret": f"{core}/secrets",
            "Job": f"/apis/batch/v1/namespaces/{namespace}/jobs",
            "EndpointSlice": f"/apis/discovery.k8s.io/{self._discovery}/namespaces/{namespace}/endpointslices",
        }

    def ray_services(self) -> list[dict[str, Any]]:
        return self._list("RayService", {})

    def pods(self) -> list[dict[str, Any]]:
        """Those that a stand-in made."""
        return self._list("Pod", {"labelSelector": _MADE})

    def secret_entry(self, name: str, entry: str) -> str:
        """Empty where it is not there."""
        found = self._taken(self._client.get(f"{self._paths['Secret']}/{name}"), but=(404,))
        return base64.b64decode((found.get("data") or {}).get(entry, "")).decode()

    def write_status(self, ray_service: dict[str, Any], status: dict[str, Any]) -> None:
        """A full update of the status, as KubeRay does; what somebody else has changed meanwhile is a conflict."""
        body = {**ray_service, "status": status}
        name = ray_service["metadata"]["name"]
        self._taken(self._client.put(f"{self._paths['RayService']}/{name}/status", json=body), but=(404, 409))

    def update(self, ray_service: dict[str, Any]) -> None:
        """A full update of the object."""
        path = f"{self._paths['RayService']}/{ray_service['metadata']['name']}"
        self._taken(self._client.put(path, json=ray_service), but=(404, 409))

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """The object as it is then; as it was, if there is one of that name."""
        answer = self._client.post(self._paths[body["kind"]], json=self._as_served(body))
        if answer.status_code == 409:
            return self._taken(self._client.get(f"{self._paths[body['kind']]}/{body['metadata']['name']}"))
        return self._taken(answer)

    def keep(self, body: dict[str, Any]) -> None:
        """Makes it, or writes over it."""
        served = self._as_served(body)
        path = f"{self._paths[body['kind']]}/{body['metadata']['name']}"
        answer = self._client.get(path)
        if answer.status_code == 404:
            self._taken(self._client.post(self._paths[body["kind"]], json=served))
            return
        there = self._taken(answer)
        served["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
        if body["kind"] == "Service":  # a ClusterIP stays
            served["spec"]["clusterIP"] = there["spec"]["clusterIP"]
        self._taken(self._client.put(path, json=served))

    def pod_status(self, name: str, status: dict[str, Any]) -> None:
        answer = self._client.patch(
            f"{self._paths['Pod']}/{name}/status",
            json={"status": status},
            headers={"content-type": "application/merge-patch+json"},
        )
        self._taken(answer, but=(404,))

    def delete(self, kind: str, name: str) -> None:
        """At once: no kubelet would end a pod."""
        self._taken(self._client.delete(f"{self._paths[kind]}/{name}", params={"gracePeriodSeconds": 0}), but=(404,))

    def delete_all_made(self) -> None:
        for kind in ("EndpointSlice", "Service", "Job", "Pod"):
            for one in self._list(kind, {"labelSelector": _MADE}):
                self.delete(kind, one["metadata"]["name"])

    def close(self) -> None:
        self._client.close()

    def _list(self, kind: str, query: dict[str, str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._taken(self._client.get(self._paths[kind], params=query))["items"]
        return found

    def _as_served(self, body: dict[str, Any]) -> dict[str, Any]:
        """Of v1beta1 1.20 knows whether an endpoint is ready, and no more."""
        body = copy.deepcopy(body)
        if body["kind"] == "EndpointSlice" and self._discovery == "v1beta1":
            body["apiVersion"] = "discovery.k8s.io/v1beta1"
            for endpoint in body["endpoints"]:
                endpoint["conditions"] = {"ready": endpoint["conditions"]["ready"]}
        return body

    def _taken(self, answer: httpx.Response, *, but: tuple[int, ...] = ()) -> dict[str, Any]:
        if answer.status_code in but:
            return {}
        if answer.is_error:
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        found: dict[str, Any] = answer.json()
        return found
