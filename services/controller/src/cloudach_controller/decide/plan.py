"""The plan says what to do about a Model, from what is there and what should be. Pure.

A change is one of these, in the order of what it costs:

    in place     Replica counts, drain times and autoscaling change. No replica that stays is restarted.
    rolling      The engine's arguments change. Replicas are replaced one by one, each new one before an old one goes.
    back         A replacement is taken back. What serves goes on, and what was to take over goes.
    anew         Pods change where none has served. They start instead of those that were to come.
    replacement  Pods change. A second Ray cluster starts beside the first, and takes over when it is ready.

A replacement takes as many GPUs again, so it waits for the operator's word (`words.py`). Until then only changes in
place are applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cloudach_model_api.model import Model
from cloudach_model_api.status import rfc3339

from ..resources import ray_service as build
from ..settings import Settings
from .drift import Path, covers, extras, foreign, removals
from .replicas import Demand, autoscaler_start, may_sleep, override
from .rollout import Around, decide, first

Change = Literal["none", "create", "in place", "rolling", "back", "anew", "replacement"]

CLUSTER: Path = ("spec", "rayClusterConfig")
"""Foreign fields are removed from here, because all of it makes pods, and each change of it would replace them."""


@dataclass(frozen=True, slots=True)
class Plan:
    change: Change
    manifest: dict[str, Any] | None
    """This is the RayService to apply. None means that there is nothing to apply."""
    waiting: str = ""
    """This says why a replacement is not begun, and what lets it begin."""
    drop: str = ""
    """This RayCluster was to take over and is given up. Its name is removed from the RayService's status."""
    cluster: dict[str, Any] | None = None
    """This is the rayClusterConfig as it should be. None means that it is so, or becomes so by `manifest` alone."""


def plan(
    model: Model,
    wanted: Demand,
    there: dict[str, Any] | None,
    settings: Settings,
    *,
    target: int | None,
    now: datetime,
    around: Around | None = None,
) -> Plan:
    """`there` is the RayService. `target` says how many replicas Serve's autoscaler wants at the moment, if known."""
    around = around or Around()
    if there is None:
        new = first(model, settings, around)
        config = build.serve_config(model, new.application, override(model, wanted))
        notes = new.notes | _sleep_note(model, None, now)
        return Plan("create", build.ray_service(model, new.made, config, notes=notes, deletion_delay_s=0))
    live = build.live(there)
    rollout = decide(model, wanted, live, settings, around, now=now)
    # With other code the replicas are restarted anyway.
    same_code = rollout.pods != "begun anew" and live.bare_application == rollout.application
    plain = same_code and "num_replicas" in live.override
    begin = autoscaler_start(model, wanted, live.override, asked_anew=asked_anew(model, live), target=target)
    options = override(model, wanted, begin=begin, plain=plain)
    manifest = build.ray_service(
        model,
        rollout.made,
        build.serve_config(model, rollout.application, options),
        notes=rollout.notes | _sleep_note(model, there, now),
        deletion_delay_s=rollout.deletion_delay_s,
        replaces=not rollout.drop,
    )
    unclean = foreign(live.cluster, rollout.made.config) not in ("", around.tolerated)
    applied = manifest if not covers(there, manifest) else None
    change: Change = "none"
    if rollout.pods != "as they are":
        change = _CHANGES[rollout.pods]
    elif applied is not None or unclean:
        change = "in place" if live.bare_application == rollout.application else "rolling"
    return Plan(change, applied, rollout.waiting, rollout.drop, rollout.made.config if unclean else None)


_CHANGES: dict[str, Change] = {"replaced": "replacement", "begun anew": "anew", "taken back": "back"}


def asked_anew(model: Model, live: build.Live) -> bool:
    """Tells if spec.replicas has changed since the autoscaler was last told where to go on."""
    return live.replicas_asked != str(model.spec.replicas)


def _sleep_note(model: Model, there: dict[str, Any] | None, now: datetime) -> dict[str, str]:
    since = build.may_sleep_since(there, now) or now
    return {build.ANNOTATION_MAY_SLEEP: rfc3339(since) if may_sleep(model) else ""}


def cleaning(there: dict[str, Any], cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a JSON patch that removes from a RayService what this rayClusterConfig has not; empty if there is
    nothing.

    The patch holds for this version of the object only. For another one the API server answers with a conflict.
    """
    live = (there.get("spec") or {}).get("rayClusterConfig") or {}
    paths = [path for path, _ in extras(live, cluster)]
    if not paths:
        return []
    version = there["metadata"]["resourceVersion"]
    return [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}, *removals(paths, below=CLUSTER)]
