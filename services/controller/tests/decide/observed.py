"""What a controller has seen of a Model, and the status that it makes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cloudach_controller.decide.observation import Observation, Replicas
from cloudach_controller.decide.plan import Plan
from cloudach_controller.decide.replicas import demand
from cloudach_controller.decide.status import status
from cloudach_controller.settings import Settings
from cloudach_model_api.model import Model
from cloudach_model_api.status import ModelStatus

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


NOTHING = Plan("none", None)


def model(spec: dict[str, Any] | None = None, old: dict[str, Any] | None = None, **meta: Any) -> Model:
    base = {"source": {"huggingFace": {"repo": "Qwen/Qwen3-8B"}}, "replicas": 2}
    metadata = {"name": "qwen", "namespace": "llm", "uid": "u1", "generation": 4, **meta}
    return Model.from_object({"metadata": metadata, "spec": base | (spec or {}), "status": old or {}})


def replicas(ready: int, starting: int = 0, leaving: int = 0, **more: Any) -> Replicas:
    return Replicas(
        more.get("target", ready + starting),
        ready,
        starting,
        leaving,
        more.get("app", "RUNNING"),
        more.get("deployment", "HEALTHY"),
        more.get("message", ""),
    )


ACTIVE = {"rayClusterName": "qwen-1"}


RAY_SERVICE: dict[str, Any] = {"metadata": {"name": "qwen"}, "status": {"activeServiceStatus": ACTIVE}}


def seen(view: Replicas | None = None, pods: tuple[dict[str, Any], ...] = (), **more: Any) -> Observation:
    return Observation(more.pop("ray_service", RAY_SERVICE), pods, view, **more)


def pod(**status: Any) -> dict[str, Any]:
    labels = {"ray.io/cluster": "qwen-1"}
    return {"metadata": {"name": "qwen-abc", "namespace": "llm", "labels": labels}, "status": status}


def container(**state: Any) -> dict[str, Any]:
    return pod(containerStatuses=[{"name": "ray-worker", **state}])


def told(of: Model, what: Observation, done: Plan = NOTHING) -> tuple[str | None, dict[str, str], ModelStatus]:
    found = status(of, demand(of, NOW), done, what, Settings(), now=NOW)
    return found.state, {one.type: f"{one.status} {one.reason}" for one in found.conditions}, found


WAS_READY = {"state": "Ready", "desiredReplicas": 2, "readyReplicas": 2, "replicas": 2}


DELETED = {"deletionTimestamp": NOW.isoformat()}
