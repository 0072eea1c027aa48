"""What the chart lets its service accounts do."""

from __future__ import annotations

import json
from itertools import product

from tests.support.release import Helm
from tests.support.waiting import until

CONTROLLER = {
    "models.cloudach.dev": ("get", "list", "patch", "watch"),
    "models.cloudach.dev/status": ("get", "patch"),
    "models.cloudach.dev/finalizers": ("update",),
    "modeluses.cloudach.dev": ("create", "get", "list", "watch"),
    "rayservices.ray.io": ("create", "delete", "get", "list", "patch", "watch"),
    "rayservices.ray.io/status": ("patch",),
    "rayclusters.ray.io": ("list", "watch"),
    "pods": ("get", "list", "watch"),
    "pods/log": ("get",),
    "events": ("create", "patch"),
    "networkpolicies.networking.k8s.io": ("create", "delete", "get", "list", "patch", "watch"),
    "poddisruptionbudgets.policy": ("create", "delete", "get", "list", "patch", "watch"),
    "leases.coordination.k8s.io": ("create",),
    "leases.coordination.k8s.io cloudach-models": ("get", "update"),
    "secrets": ("create",),
    "secrets cloudach-ray-token": ("get", "list", "watch"),
    "secrets cloudach-ray-seed": ("get",),
    "secrets cloudach-engine-keys": ("get", "list", "patch", "watch"),
    "secrets cloudach-gcs-store": ("list", "patch", "watch"),
}


GATEWAY = {
    "models.cloudach.dev": ("get", "list", "watch"),
    "modeluses.cloudach.dev": ("get",),
    "modeluses.cloudach.dev/status": ("patch",),
    "endpointslices.discovery.k8s.io": ("get", "list", "watch"),
    "secrets cloudach-engine-keys": ("get",),
}


LEASE = {
    "leases.coordination.k8s.io": ("create",),
    "leases.coordination.k8s.io cloudach-controller": ("get", "update"),
}


def everywhere(*watched: str) -> dict[str, tuple[str, ...]]:
    """What the controller may in all namespaces, so that it can let go of a Model with its namespace."""
    return {"models.cloudach.dev": ("list", "patch"), **{f"namespaces {each}": ("get",) for each in watched}}


def may(helm: Helm, account: str, namespace: str, rights: dict[str, tuple[str, ...]]) -> None:
    """Exactly this. The API server decides by copies of roles and bindings, which come a moment after these."""
    try:
        until(lambda: allowed(helm, account, namespace) == rights, within_s=60)
    except TimeoutError:
        assert allowed(helm, account, namespace) == rights


def allowed(helm: Helm, account: str, namespace: str) -> dict[str, tuple[str, ...]]:
    """All that the API server lets the account do there: `resource[ name]` and verbs."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = json.loads(helm.as_account(account)("create", "-f", "-", "-o", "json", stdin=json.dumps(review)))
    assert not answer["status"]["incomplete"]
    found: dict[str, tuple[str, ...]] = {}
    for rule in answer["status"]["resourceRules"]:
        for group, resource in product(rule["apiGroups"], rule["resources"]):
            if group in ("authorization.k8s.io", "authentication.k8s.io"):
                continue  # asking who one is and what one may do, which everyone may
            for name in rule.get("resourceNames") or [""]:
                kind, slash, part = resource.partition("/")
                key = f"{kind}{'.' if group else ''}{group}{slash}{part} {name}".strip()
                found[key] = tuple(sorted({*found.get(key, ()), *rule["verbs"]}))
    return found
