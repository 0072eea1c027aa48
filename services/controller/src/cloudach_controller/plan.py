"""What to do about a Model, from what is there and what should be: pure.

A change is one of these, in the order of what it costs:

    in place     replica counts, drain times, autoscaling: no replica that stays is restarted
    rolling      the engine's arguments: replicas are replaced one by one, each new one before an old one goes
    replacement  pods: a second Ray cluster starts beside the first, with as many GPUs, and takes over when it is ready

A replacement waits for the operator's word (`allowed`); until then only what is in place is applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cloudach_model_api.model import Model
from cloudach_model_api.names import ANNOTATION_ALLOW_REPLACEMENT

from .replicas import Demand, override
from .resources import form
from .resources import ray_service as build
from .settings import Settings

Change = Literal["none", "create", "in place", "rolling", "replacement"]


@dataclass(frozen=True, slots=True)
class Plan:
    change: Change
    manifest: dict[str, Any] | None
    """The RayService to apply; None: nothing to apply."""
    waiting: str = ""
    """Why a replacement is not begun, and what lets it begin."""


def plan(model: Model, wanted: Demand, there: dict[str, Any] | None, settings: Settings, *, target: int | None) -> Plan:
    """`there`: the RayService. `target`: how many replicas Serve's autoscaler wants at the moment, if known."""
    app = build.application(model)
    if there is None:
        config = build.serve_config(model, app, override(model, wanted))
        cluster = form.new(model, settings)
        return Plan("create", build.ray_service(model, settings, cluster=cluster, config=config))
    live = build.live(there)
    cluster = form.running(live, model, settings)
    change: Change = "none"
    waiting = ""
    if not form.is_as_asked(cluster, model, settings):
        if wanted.mode == "deleting" or (wanted.mode == "running" and not allowed(model, settings)):
            waiting = "" if wanted.mode == "deleting" else _ask(model, settings)
            app = {name: value for name, value in live.application.items() if name != "deployments"} or app
        else:
            cluster, change = form.new(model, settings), "replacement"
    options = override(model, wanted, begin=_begin(model, wanted, live, target))
    config = build.serve_config(model, app, options)
    manifest = build.ray_service(model, settings, cluster=cluster, config=config)
    if change == "none" and not covers(there, manifest):
        old = {name: value for name, value in live.application.items() if name != "deployments"}
        change = "in place" if old == app else "rolling"
    return Plan(change, manifest if change != "none" else None, waiting)


def allowed(model: Model, settings: Settings) -> bool:
    """`always`, or the generation that the operator has looked at."""
    word = model.metadata.annotations.get(ANNOTATION_ALLOW_REPLACEMENT, "")
    return settings.rollout.replacement == "at_once" or word in ("always", str(model.metadata.generation))


def _ask(model: Model, settings: Settings) -> str:
    spec = model.spec
    gpus = spec.gpus_per_replica * max(spec.replicas, 1)
    cost = f"a second set of pods, with {gpus} {spec.gpu.resource_name} more" if gpus else "a second set of pods"
    word = f"{ANNOTATION_ALLOW_REPLACEMENT}={model.metadata.generation}"
    return (
        f"The change of the pods takes {cost}, until it has taken over from the first. To let it: "
        f"kubectl annotate model {model.metadata.name} -n {model.metadata.namespace} --overwrite {word}"
    )


def _begin(model: Model, wanted: Demand, live: build.Live, target: int | None) -> int | None:
    """Where Serve's autoscaler goes on from.

    Serve goes back to `initial_replicas` whenever anything in the deployment's options changes, so that number is left
    as it is as long as nothing does, is what there is when something else changes, and what the operator has said when
    that is new.
    """
    scaling = model.spec.autoscaling
    if not wanted.autoscaled or scaling is None:
        return None
    old = live.override.get("autoscaling_config") or {}
    if live.replicas_asked != str(model.spec.replicas) or not old.get("initial_replicas"):
        return wanted.replicas
    kept: int = old["initial_replicas"]
    if override(model, wanted, begin=kept) == live.override:
        return kept
    return min(max(target or kept, scaling.min_replicas, 1), scaling.max_replicas)


def covers(there: Any, wanted: Any) -> bool:
    """Whether all of `wanted` is in `there`; what other writers have added does not count."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            name in there and covers(there[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(covers(a, b) for a, b in zip(there, wanted, strict=True))
        )
    return bool(there == wanted)
