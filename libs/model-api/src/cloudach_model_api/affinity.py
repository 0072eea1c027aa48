"""A pod's affinity is described as Kubernetes defines it. What a term holds is left to Kubernetes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from .part import Part

Term = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
Terms = Annotated[tuple[Term, ...], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})]


class NodeAffinity(Part):
    """It chooses nodes by their labels."""

    required_during_scheduling_ignored_during_execution: Term | None = None
    """Pods run only on nodes that one of its `nodeSelectorTerms` selects."""
    preferred_during_scheduling_ignored_during_execution: Terms | None = None
    """Pods prefer nodes that a `preference` selects. Each entry has a `weight`."""


class PodAffinity(Part):
    """It chooses nodes by the pods that run there."""

    required_during_scheduling_ignored_during_execution: Terms | None = None
    """Each entry names a `topologyKey`, and selects pods by `labelSelector`."""
    preferred_during_scheduling_ignored_during_execution: Terms | None = None
    """Each entry has a `weight` and a `podAffinityTerm`."""


class Affinity(Part):
    """It is the affinity of the worker pods, as Kubernetes defines it."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None

    def to_pod(self) -> dict[str, Any]:
        """Returns the fields exactly as they were given, because clusters are compared with what they were made
        from.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
