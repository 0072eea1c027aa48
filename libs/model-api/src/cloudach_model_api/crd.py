"""The CustomResourceDefinitions of Model and ModelUse are made from their types here."""

from __future__ import annotations

from typing import Any

from . import names
from .model import Model
from .schema import structural
from .spec import ModelSpec
from .status import ModelStatus
from .use import ModelUse, UseStatus

_COLUMNS: list[dict[str, Any]] = [
    {"name": "Model", "type": "string", "jsonPath": ".status.id", "description": "The name that clients use"},
    {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas", "description": "Replicas that answer"},
    {
        "name": "Desired",
        "type": "integer",
        "jsonPath": ".status.desiredReplicas",
        "description": "Replicas that should exist",
    },
    {"name": "State", "type": "string", "jsonPath": ".status.state"},
    {
        "name": "Progress",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Progressing")].reason',
        "description": "The change that is under way; ReplacementPending waits for the operator's word",
    },
    {
        "name": "Endpoint",
        "type": "string",
        "jsonPath": ".status.endpoint",
        "priority": 1,
        "description": "The address of its engines",
    },
    {
        "name": "Reason",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
        "priority": 1,
        "description": "The reason why it is ready or not",
    },
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]
_USE_COLUMNS: list[dict[str, Any]] = [
    {"name": "Last request", "type": "date", "jsonPath": ".status.lastRequestAt"},
    {"name": "Woken", "type": "date", "jsonPath": ".status.wakeRequestedAt"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


def openapi() -> dict[str, Any]:
    """Returns the schema of the whole object."""
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


def use_openapi() -> dict[str, Any]:
    """Returns the schema of a ModelUse."""
    return {
        "type": "object",
        "description": " ".join((ModelUse.__doc__ or "").split()),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "status": structural(UseStatus),
        },
    }


def crd(metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the definition of Model, with further `metadata` if given."""
    version = {
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
    kinds = {
        "kind": names.KIND,
        "listKind": names.LIST_KIND,
        "plural": names.PLURAL,
        "singular": names.SINGULAR,
        "shortNames": [names.SHORT_NAME],
        "categories": [names.CATEGORY],
    }
    return _definition(names.CRD_NAME, metadata, kinds, version)


def use_crd(metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the definition of ModelUse, with further `metadata` if given."""
    version = {
        "subresources": {"status": {}},
        "additionalPrinterColumns": _USE_COLUMNS,
        "schema": {"openAPIV3Schema": use_openapi()},
    }
    kinds = {
        "kind": names.USE_KIND,
        "listKind": names.USE_LIST_KIND,
        "plural": names.USE_PLURAL,
        "singular": names.USE_SINGULAR,
    }
    return _definition(names.USE_CRD_NAME, metadata, kinds, version)


def _definition(
    name: str, metadata: dict[str, Any] | None, kinds: dict[str, Any], version: dict[str, Any]
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name, **(metadata or {})},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": kinds,
            "versions": [{"name": names.VERSION, "served": True, "storage": True, **version}],
        },
    }
