"""What the stand-ins ask of the API server, as its administrator."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.kube import Cluster

_KINDS = "/apis/ray.io/v1"


class RayServices:
    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._client = httpx.Client(verify=cluster.tls, base_url=cluster.url, trust_env=False, timeout=60)
        self._path = f"{_KINDS}/namespaces/{namespace}/rayservices"
        self._services = f"/api/v1/namespaces/{namespace}/services"

    def list(self) -> list[dict[str, Any]]:
        """Raises httpx.HTTPError while the server is away."""
        answer = self._client.get(self._path)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    def write_status(self, name: str, status: dict[str, Any]) -> None:
        """Raises httpx.HTTPError, but for a RayService that is gone."""
        answer = self._client.patch(
            f"{self._path}/{name}/status",
            json={"status": status},
            headers={"content-type": "application/merge-patch+json"},
        )
        if answer.status_code != 404:
            answer.raise_for_status()

    def make_service(self, name: str, port: int, owner: dict[str, Any]) -> None:
        """Unless it is there. Raises httpx.HTTPError."""
        meta = owner["metadata"]
        reference = {"apiVersion": "ray.io/v1", "kind": "RayService", "name": meta["name"], "uid": meta["uid"]}
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "ownerReferences": [reference]},
            "spec": {"ports": [{"name": "http", "port": port}], "selector": {"ray.io/cluster": meta["name"]}},
        }
        answer = self._client.post(self._services, json=body)
        if answer.status_code != 409:
            answer.raise_for_status()

    def close(self) -> None:
        self._client.close()
