"""These functions say how many replicas a Model should have now: by hand, by Serve's autoscaler, asleep
or off. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from cloudach_model_api.model import Model, latest
from cloudach_model_api.reasons import Reason
from cloudach_model_api.status import ConditionType, State
from cloudach_model_api.use import ModelUse, UseStatus

from .drift import covers

Mode = Literal["running", "sleeping", "off", "deleting"]

MARK_S = 60.0
"""A mark of use may be this old while the Model is in use, because gateways write it at most once a minute."""

AHEAD_S = 3600.0
"""A gateway's clock may be ahead of ours by this time."""

START_S = 1800.0
"""A Model that is starting stays awake for this time. Otherwise a client that woke it would never be served."""


@dataclass(frozen=True, slots=True)
class Demand:
    mode: Mode
    replicas: int
    """By hand it is the number of replicas. With an autoscaler it is where that begins, or goes on from."""
    autoscaled: bool = False
    look_again_s: float | None = None
    """After this time the demand may change by itself."""
    wake_requested_at: datetime | None = None
    """The Model was last wanted awake at this time."""


def may_sleep(model: Model) -> bool:
    """Tells if the Model is put to sleep when nobody asks for it."""
    return model.spec.autoscaling is not None and model.spec.autoscaling.min_replicas == 0


def demand(
    model: Model,
    now: datetime,
    use: ModelUse | None = None,
    *,
    untold: bool = False,
    unmade: bool = False,
    stream_s: float = 0.0,
    may_sleep_since: datetime | None = None,
) -> Demand:
    """Returns how many replicas the Model should have.

    `use` holds what gateways have told. `untold` means that they cannot tell anything, so no Model is put to sleep.
    `unmade` means that the object for it is still to be made. `stream_s` is how long a stream may last.
    `may_sleep_since` is when the spec began to let the Model sleep, if that is known.
    """
    spec = model.spec
    if model.metadata.deletion_timestamp is not None:
        return Demand("deleting", 0)
    scaling = spec.autoscaling
    if scaling is None:
        return Demand("running" if spec.replicas else "off", spec.replicas)
    look_again = wanted_at = None
    if may_sleep(model):
        told = use.status if use is not None else UseStatus()
        wanted_at = _latest(now, model.wake_requested_at, told.wake_requested_at)
        used_at = _latest(now, model.last_request_at, told.last_request_at)
        tellable_since = now if unmade else _tellable_since(model, use, stream_s)
        since = latest(*(moment for moment in (tellable_since, may_sleep_since) if moment is not None))
        left = (_sleeps_at(model, scaling.idle_seconds, wanted_at, used_at, since) - now).total_seconds()
        if left <= 0 and not untold:
            return Demand("sleeping", 0, wake_requested_at=wanted_at)
        look_again = left if left > 0 else None
    begin = min(max(spec.replicas, scaling.min_replicas, 1), scaling.max_replicas)
    return Demand("running", begin, autoscaled=True, look_again_s=look_again, wake_requested_at=wanted_at)


def _latest(now: datetime, *moments: datetime | None) -> datetime | None:
    """Returns the latest moment. Those that lie far ahead do not count, because they could keep a Model awake for
    years.
    """
    limit = now + timedelta(seconds=AHEAD_S)
    return latest(*(moment for moment in moments if moment is not None and moment <= limit))


def _tellable_since(model: Model, use: ModelUse | None, stream_s: float) -> datetime | None:
    """Returns since when every gateway can say that the Model is in use: since its ModelUse exists.

    A Model that is much older comes from a release without ModelUses. Gateways of that release may still have streams
    of it, and cannot tell.
    """
    made = use.metadata.creation_timestamp if use is not None else None
    if made is None:
        return None
    stream = timedelta(seconds=stream_s)
    older = model.metadata.creation_timestamp is not None and made - model.metadata.creation_timestamp > stream
    return made + stream if older else made


def _sleeps_at(
    model: Model, idle_s: float, wanted_at: datetime | None, used_at: datetime | None, since: datetime | None
) -> datetime:
    """Returns when the Model goes to sleep.

    Before `since` it could not have been put to sleep. `since` does not wake a Model that sleeps.
    """
    idle = timedelta(seconds=idle_s)
    moments = []
    if used_at is not None:
        moments.append(used_at + idle + timedelta(seconds=MARK_S))
    marks = [mark for mark in (wanted_at, model.metadata.creation_timestamp) if mark is not None]
    ready = model.status.condition(ConditionType.READY)
    asleep = ready is not None and ready.reason == Reason.SLEEPING  # and stays so
    if since is not None and not asleep:
        marks.append(since)
    if model.status.state in (State.PENDING, State.DEPLOYING):
        moments += [mark + timedelta(seconds=START_S) for mark in marks]
    if ready is not None and ready.status == "True":
        marks.append(ready.last_transition_time)
    moments += [mark + idle for mark in marks]
    return max(moments, default=datetime.max.replace(tzinfo=UTC))  # nothing is known: it stays awake


def autoscaler_start(
    model: Model, wanted: Demand, old: Mapping[str, Any], *, asked_anew: bool, target: int | None
) -> int | None:
    """Returns where Serve's autoscaler goes on from; None if the replicas are set by hand.

    Serve goes back to `initial_replicas` whenever any option of the deployment changes. So that number stays as long as
    nothing else changes. When something else changes, it is the number of replicas that run. When the operator asks for
    another number, it is that one. `old` holds the options that the deployment has. `target` says how many replicas the
    autoscaler wants now, if known.
    """
    scaling = model.spec.autoscaling
    if not wanted.autoscaled or scaling is None:
        return None
    kept = (old.get("autoscaling_config") or {}).get("initial_replicas")
    if asked_anew or not kept:
        return wanted.replicas
    if covers(old, override(model, wanted, begin=int(kept))):
        return int(kept)
    return min(max(target or int(kept), scaling.min_replicas, 1), scaling.max_replicas)


def with_current_options(
    app: Mapping[str, Any], model: Model, wanted: Demand, *, asked_anew: bool, target: int | None
) -> dict[str, Any] | None:
    """Returns the Serve application with the options that are wanted now; None if it has them already.

    An application that does not have exactly one deployment is not ours, so None is returned for it, too.
    """
    deployments = app.get("deployments") or []
    if len(deployments) != 1 or "name" not in deployments[0]:
        return None
    old = {name: value for name, value in deployments[0].items() if name != "name"}
    begin = autoscaler_start(model, wanted, old, asked_anew=asked_anew, target=target)
    options = override(model, wanted, begin=begin, plain="num_replicas" in old)
    if covers(old, options):
        return None
    return {**app, "deployments": [{"name": deployments[0]["name"], **options}]}


def serve_missed_options(app: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Tells if Serve has this application with other options for its deployment than KubeRay was given."""

    def bare(one: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in one.items() if name != "deployments"}

    return bool(given) and covers(bare(app), bare(given)) and not covers(app, given)


def override(model: Model, wanted: Demand, *, begin: int | None = None, plain: bool = False) -> dict[str, Any]:
    """Returns the deployment's options in serveConfigV2 that Serve takes over without restarting a replica.

    A fixed number is written as an autoscaler's bounds. To Serve a deployment with an autoscaler is other code than one
    without. So a change from `num_replicas` to bounds would restart every replica.

    `begin` is where an autoscaler goes on from, instead of `wanted.replicas`. `plain` means that replicas run which
    were started with `num_replicas`, as 0.1.0 wrote it.
    """
    options: dict[str, Any] = {"graceful_shutdown_timeout_s": float(model.spec.drain_seconds)}
    if wanted.mode != "running":
        # Serve takes no num_replicas of 0; an autoscaler that begins at 0 and sees no request stays there.
        zero = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 1, "downscale_delay_s": 0.0}
        return options | {"autoscaling_config": zero | {"downscale_to_zero_delay_s": 0.0, "upscale_delay_s": 3600.0}}
    scaling = model.spec.autoscaling
    # Code that changes is rolled out with one replica more than wanted, so that no moment is without one.
    options["max_surge_percent"] = 1
    if scaling is None or not wanted.autoscaled:
        count = wanted.replicas
        fixed = {"min_replicas": count, "initial_replicas": count, "max_replicas": count}
        return options | ({"num_replicas": count} if plain else {"autoscaling_config": fixed})
    return options | {
        "autoscaling_config": {
            "min_replicas": max(scaling.min_replicas, 1),
            "max_replicas": scaling.max_replicas,
            "initial_replicas": wanted.replicas if begin is None else begin,
            "target_ongoing_requests": scaling.target_ongoing_requests,
            "upscale_delay_s": float(scaling.upscale_delay_seconds),
            "downscale_delay_s": float(scaling.downscale_delay_seconds),
        }
    }
