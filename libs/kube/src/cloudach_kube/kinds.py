"""A kind names objects as an API server does in its paths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    group: str
    version: str
    plural: str

    def path(self, namespace: str | None, name: str = "", sub: str = "") -> str:
        """Returns the path of one object, or of all of them. `namespace` None means all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts: list[str] = [root, *(["namespaces", namespace] if namespace else []), self.plural, name, sub]
        return "/".join(part for part in parts if part)


PODS = Kind("", "v1", "pods")
SECRETS = Kind("", "v1", "secrets")
EVENTS = Kind("", "v1", "events")
NAMESPACES = Kind("", "v1", "namespaces")
LEASES = Kind("coordination.k8s.io", "v1", "leases")
NETWORK_POLICIES = Kind("networking.k8s.io", "v1", "networkpolicies")
DISRUPTION_BUDGETS = Kind("policy", "v1", "poddisruptionbudgets")
ENDPOINT_SLICES = Kind("discovery.k8s.io", "v1", "endpointslices")
