"""The CustomResourceDefinition of Model, made from its types."""

from __future__ import annotations

from typing import Any

from . import names
from .model import Model
from .schema import structural
from .spec import ModelSpec
from .status import ModelStatus

_COLUMNS: list[dict[str, Any]] = [
    {"name": "Model", "type": "string", "jsonPath": ".status.id", "description": "What clients call it"},
    {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas", "description": "Replicas that answer"},
    {
        "name": "Desired",
        "type": "integer",
        "jsonPath": ".status.desiredReplicas",
        "description": "Replicas there should be",
    },
    {"name": "State", "type": "string", "jsonPath": ".status.state"},
    {
        "name": "Endpoint",
        "type": "string",
        "jsonPath": ".status.endpoint",
        "priority": 1,
        "description": "Where its engines listen",
    },
    {
        "name": "Reason",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
        "priority": 1,
        "description": "Why it is ready or not",
    },
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


def openapi() -> dict[str, Any]:
    """The schema of the whole object."""
    return {
        "type": "object",
        "description": " ".join((Model.__doc__ or "").split()),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(ModelSpec),
            "status": structural(ModelStatus),
        },
        "x-kubernetes-validations": [rule.to_schema() for rule in Model.rules if rule.cel is not None],
    }


def crd(metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """The definition, with further `metadata` if given."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": names.CRD_NAME, **(metadata or {})},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": names.LIST_KIND,
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": [names.CATEGORY],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": _COLUMNS,
                    "schema": {"openAPIV3Schema": openapi()},
                }
            ],
        },
    }
