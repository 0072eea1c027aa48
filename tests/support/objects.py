"""Objects of an API server as tests look at them again and again: over HTTP, as its administrator.

What an operator types is `kubectl`; but to start that for each look costs fifty times as much of a core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from .kube import Cluster

_GROUPS = {
    "api/v1": "events pods secrets services",
    "apis/cloudach.dev/v1alpha1": "models modeluses",
    "apis/coordination.k8s.io/v1": "leases",
    "apis/discovery.k8s.io/v1": "endpointslices",
    "apis/networking.k8s.io/v1": "networkpolicies",
    "apis/policy/v1": "poddisruptionbudgets",
    "apis/ray.io/v1": "rayclusters rayservices",
}
_PATHS = {kind: group for group, kinds in _GROUPS.items() for kind in kinds.split()}

_YOUNG = ("endpointslices", "poddisruptionbudgets")  # Kubernetes 1.20 has only v1beta1 of them


class Objects:
    """One namespace. Kinds are named in the plural. Raises httpx.HTTPError while the server is away or refuses."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Empty where it is not there."""
        return self._ask("GET", kind, name)

    def items(self, kind: str, **query: str) -> list[dict[str, Any]]:
        """query: `labelSelector` or `fieldSelector`."""
        found: list[dict[str, Any]] = self._ask("GET", kind, query=query).get("items", [])
        return found

    def merge(self, kind: str, name: str, change: Mapping[str, Any], subresource: str = "") -> None:
        """A merge patch; of what is not there, nothing is done."""
        self._ask("PATCH", kind, f"{name}/{subresource}".rstrip("/"), body=change)

    def delete(self, kind: str, name: str) -> None:
        """Asks for the end and does not wait for it."""
        self._ask("DELETE", kind, name)

    def _ask(
        self, method: str, kind: str, name: str = "", *, query: Mapping[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        group = _PATHS[kind]
        if kind in _YOUNG and self._cluster.minor < 21:
            group += "beta1"
        path = f"/{group}/namespaces/{self._namespace}/{kind}/{name}".rstrip("/")
        headers = {"content-type": "application/merge-patch+json"} if method == "PATCH" else {}
        for attempt in (1, 2):
            try:
                answer = self._cluster.http.request(method, path, params=query, json=body, headers=headers)
                break
            except httpx.TransportError:  # a connection from before the server was started again
                if attempt == 2:
                    raise
        if answer.status_code == 404:
            return {}
        if answer.is_error:
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        found: dict[str, Any] = answer.json()
        return found
