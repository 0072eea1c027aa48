"""Models and RayServices that changes are planned for."""

from __future__ import annotations

import copy
import json
import re
from datetime import UTC, datetime
from typing import Any

from cloudach_controller.decide.plan import Plan, plan
from cloudach_controller.decide.replicas import demand
from cloudach_controller.settings import parse
from cloudach_model_api.model import Model

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def model(spec: dict[str, Any] | None = None, *, generation: int = 1, **meta: Any) -> Model:
    base = {"source": {"huggingFace": {"repo": "Qwen/Qwen3-8B"}}, "replicas": 2}
    metadata = {"name": "qwen", "namespace": "llm", "uid": "u1", "generation": generation, **meta}
    return Model.from_object({"metadata": metadata, "spec": base | (spec or {})})


def planned(
    wanted: Model,
    there: dict[str, Any] | None,
    *,
    target: int | None = None,
    settings: str = "",
    since: datetime | None = None,
) -> Plan:
    asked = demand(wanted, NOW, may_sleep_since=since)
    return plan(wanted, asked, there, parse(settings), target=target, now=NOW)


def told(of: Model, **status: Any) -> Model:
    """With this status."""
    return Model.from_object(of.model_dump(mode="json", by_alias=True, exclude_none=True) | {"status": status})


def served(manifest: dict[str, Any] | None, *, active: str = "qwen-aaaaa", pending: str = "") -> dict[str, Any]:
    """The RayService with KubeRay's status, when it has seen all of it."""
    assert manifest is not None
    there = copy.deepcopy(manifest)
    there["metadata"] |= {"generation": 1, "resourceVersion": "7"}
    there["status"] = {
        "observedGeneration": 1,
        "activeServiceStatus": {"rayClusterName": active},
        "pendingServiceStatus": {"rayClusterName": pending} if pending else {},
    }
    return there


def made(of: Model, *, settings: str = "") -> dict[str, Any]:
    """Its RayService when the first cluster serves."""
    first = served(planned(of, None, settings=settings).manifest)
    return served(planned(of, first, settings=settings).manifest or first)


def asked_word(done: Plan) -> str:
    """The one that the message tells; all of the command can be pasted."""
    (command,) = re.findall(r"kubectl annotate model qwen -n llm --overwrite \S+$", done.waiting)
    return str(command).rpartition("cloudach.dev/allow-replacement=")[2]


def override(manifest: dict[str, Any] | None) -> dict[str, Any]:
    assert manifest is not None
    found: dict[str, Any] = json.loads(manifest["spec"]["serveConfigV2"])["applications"][0]["deployments"][0]
    return found


def fixed(manifest: dict[str, Any] | None) -> int:
    """The one number of replicas that Serve may have."""
    bounds = override(manifest)["autoscaling_config"]
    (count,) = set(bounds.values())
    assert bounds.keys() == {"min_replicas", "initial_replicas", "max_replicas"}
    return int(count)


def args(manifest: dict[str, Any] | None) -> dict[str, Any]:
    assert manifest is not None
    found: dict[str, Any] = json.loads(manifest["spec"]["serveConfigV2"])["applications"][0]["args"]
    return found
