"""A token locks each RayCluster, and KubeRay gives it to pods from a Secret. This module says which Secret. Pure.

Each Model has a token of its own, which is made from a seed. The seed lies in a Secret of the Model's namespace that no
pod mounts. KubeRay wants the token in a Secret of the cluster's namespace, in the entry `auth_token`. There we have no
right to read or change Secrets whose names are not known beforehand. So each Model gets a copy that is only ever
created. A part of the token's hash is in its name, so another seed makes another copy.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloudach_model_api.model import Model
from cloudach_model_api.names import LABEL_MANAGED_BY, LABEL_MODEL, MANAGER
from cloudach_model_api.use import owner

from .ray_service import ANNOTATION_OTHERS

SEED_SECRET: Final = "cloudach-ray-seed"
"""Each namespace with Models has this Secret, because rights can be tied to a name that is known beforehand."""
ENTRY: Final = "auth_token"
"""KubeRay looks for a token in this entry."""
_VARIABLE = "RAY_AUTH_TOKEN"
"""KubeRay hands the token to each container of Ray in this variable."""


@dataclass(frozen=True, slots=True, repr=False)
class OwnToken:
    """`secret` is the name of the Secret that holds a copy of the token."""

    secret: str
    value: str


def own_token(seed: str, model: Model) -> OwnToken:
    """Makes the Model's token. Another Model of the same name gets another token, because its uid differs."""
    meta = model.metadata
    value = hmac.new(seed.encode(), f"{meta.namespace}/{meta.name}/{meta.uid}".encode(), hashlib.sha256).hexdigest()
    return OwnToken(f"{meta.name}-ray-token-{hashlib.sha256(value.encode()).hexdigest()[:10]}", value)


def copy_of(token: OwnToken, model: Model) -> dict[str, Any]:
    """Returns the Secret with the copy. Garbage collection takes it away with its Model."""
    name, namespace = model.metadata.name, model.metadata.namespace
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": token.secret,
            "namespace": namespace,
            "labels": {LABEL_MODEL: name, LABEL_MANAGED_BY: MANAGER},
            "ownerReferences": [owner(model)],
        },
        "immutable": True,
        "data": {ENTRY: b64encode(token.value.encode()).decode()},
    }


def secret_in(config: Mapping[str, Any]) -> str:
    """Returns the Secret that this rayClusterConfig names; empty if none."""
    return str((config.get("authOptions") or {}).get("secretName") or "")


def secrets_used(ray_service: Mapping[str, Any]) -> frozenset[str]:
    """Returns the Secrets with tokens of all clusters that the RayService speaks of."""
    configs = [(ray_service.get("spec") or {}).get("rayClusterConfig") or {}, *_others(ray_service).values()]
    return frozenset(map(secret_in, filter(None, configs))) - {""}


def secret_of(ray_service: Mapping[str, Any] | None, pods: Iterable[Mapping[str, Any]], cluster: str) -> str:
    """Returns the Secret with the token of this RayCluster; empty if nobody knows.

    The RayService counts more than the pods. A head may change its RayCluster, from which pods are made, and may not
    learn another Model's token that way.
    """
    if ray_service is not None:
        status, others = ray_service.get("status") or {}, _others(ray_service)
        parts = [(status.get(f"{part}ServiceStatus") or {}).get("rayClusterName") for part in ("active", "pending")]
        said = (ray_service.get("spec") or {}).get("rayClusterConfig") or {}
        known = others.get(cluster, said if cluster in parts else None)
        if known is not None:
            return secret_in(known)
    return next(filter(None, (_secret_of_pod(pod) for pod in pods if _is_head(pod, cluster))), "")


def _others(ray_service: Mapping[str, Any]) -> dict[str, dict[str, Any] | None]:
    """Returns the configs of clusters that were made from an earlier text of the RayService; None for an
    unknown one.
    """
    text = ((ray_service.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_OTHERS)
    try:
        return {str(name): one and dict(one["config"]) for name, one in json.loads(text or "{}").items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_head(pod: Mapping[str, Any], cluster: str) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return labels.get("ray.io/cluster") == cluster and labels.get("ray.io/node-type") == "head"


def _secret_of_pod(pod: Mapping[str, Any]) -> str:
    for container in (pod.get("spec") or {}).get("containers") or []:
        for variable in container.get("env") or []:
            if variable.get("name") == _VARIABLE:
                return str(((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name") or "")
    return ""
