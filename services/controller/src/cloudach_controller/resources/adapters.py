"""LoRA adapters reach the engine through the args of `cloudach_inference.serve:build`, and need Secrets and claims in
the pods. Pure.

Pods are replaced when what they need changes. So the Secret and the claim of the base's weights serve its adapters too.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cloudach_model_api.model import Model
from cloudach_model_api.source import AdapterSource

WEIGHTS_FOLDER = "/models"
"""The claim of the base's weights is mounted here."""
ADAPTERS_FOLDER = "/adapters"
"""Further claims are mounted here, each under its name."""


def of_engine(model: Model) -> dict[str, Any] | None:
    """Returns `lora` of the application's args, always in the same order. The names that clients use are not in it."""
    lora = model.spec.lora
    if lora is None:
        return None
    adapters = [
        {"name": adapter.name, **_place(model, adapter.source)}
        for adapter in sorted(lora.adapters, key=lambda each: each.name)
    ]
    rank = {} if lora.max_rank is None else {"max_rank": lora.max_rank}
    return {"adapters": adapters, "max_loaded": lora.loaded_at_once, **rank}


def any_from_hub(model: Model) -> bool:
    return any(adapter.source.hugging_face is not None for adapter in model.spec.adapters)


def claims(model: Model) -> dict[str, str]:
    """Returns the claims that only adapters need, with the folder of each in the pods."""
    base = model.spec.source.pvc
    found = {a.source.pvc.claim_name for a in model.spec.adapters if a.source.pvc is not None}
    return {name: f"{ADAPTERS_FOLDER}/{name}" for name in sorted(found - ({base.claim_name} if base else set()))}


def tokens(model: Model) -> list[dict[str, Any]]:
    """Returns environment variables of pods with access tokens that are not the base's."""
    found: dict[str, dict[str, Any]] = {}
    for adapter in model.spec.adapters:
        prefix = _prefix(model, adapter.source)
        hub = adapter.source.hugging_face
        if prefix and hub is not None and hub.token_secret is not None:
            reference = {"secretKeyRef": {"name": hub.token_secret.name, "key": hub.token_secret.key}}
            found[prefix] = {"name": f"{prefix}HF_TOKEN", "valueFrom": reference}
    return [found[prefix] for prefix in sorted(found)]


def credentials(model: Model) -> list[dict[str, Any]]:
    """Returns `envFrom` of pods with credentials of object stores that are not the base's."""
    found: dict[str, dict[str, Any]] = {}
    for adapter in model.spec.adapters:
        prefix = _prefix(model, adapter.source)
        store = adapter.source.object_store
        if prefix and store is not None and store.credentials_secret is not None:
            found[prefix] = {"prefix": prefix, "secretRef": {"name": store.credentials_secret.name}}
    return [found[prefix] for prefix in sorted(found)]


def _place(model: Model, source: AdapterSource) -> dict[str, Any]:
    prefix = _prefix(model, source)
    secret = {"env_prefix": prefix} if prefix else {}
    if source.hugging_face is not None:
        revision = source.hugging_face.revision
        return {"repo": source.hugging_face.repo, **({"revision": revision} if revision else {}), **secret}
    if source.object_store is not None:
        endpoint = source.object_store.endpoint
        return {"uri": source.object_store.uri, **({"endpoint": endpoint} if endpoint else {}), **secret}
    if source.pvc is not None:
        root = claims(model).get(source.pvc.claim_name, WEIGHTS_FOLDER)
        return {"folder": root + (f"/{source.pvc.path.rstrip('/')}" if source.pvc.path else "")}
    if source.image is not None:
        return {"folder": source.image.path}
    return {}


def _prefix(model: Model, source: AdapterSource) -> str:
    """Returns the prefix of variables whose Secret is the adapter's alone; empty if the base's variables serve."""
    base = model.spec.source
    if source.hugging_face is not None and source.hugging_face.token_secret is not None:
        token = source.hugging_face.token_secret
        if base.hugging_face is not None and base.hugging_face.token_secret == token:
            return ""
        return _named(f"{token.name}/{token.key}")
    if source.object_store is not None and source.object_store.credentials_secret is not None:
        secret = source.object_store.credentials_secret
        if base.object_store is not None and base.object_store.credentials_secret == secret:
            return ""
        return _named(secret.name)
    return ""


def _named(secret: str) -> str:
    return f"ADAPTER_{hashlib.sha256(secret.encode()).hexdigest()[:8].upper()}_"
