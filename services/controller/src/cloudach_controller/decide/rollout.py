"""These functions choose which pods a Model's RayService asks for: those that serve, others, or a way back. Pure.

KubeRay compares `rayClusterConfig` with the second cluster while there is one, and with the first otherwise. Whatever
differs gets a new second cluster, and the one before is dropped. So the text of the first cluster alone does not take a
replacement back: a third cluster would start. Three things together do, in any order, and none of them starts one:

    - The text that the first cluster was made from, with `upgradeStrategy: None`, makes KubeRay start no cluster.
    - `rayClusterDeletionDelaySeconds: 0` is what KubeRay reads when it drops a cluster.
    - An emptied `status.pendingServiceStatus` makes KubeRay drop the second cluster.

What a RayCluster was made from stands on the RayService (`cloudach.dev/other-clusters`) for as long as the RayService
says something else. A replacement that nobody approved, as that of a sleeping Model, is taken back when it is woken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from cloudach_model_api.model import Model
from cloudach_model_api.status import rfc3339

from ..resources import form
from ..resources import ray_service as build
from ..resources.ray_service import Live, Made
from ..settings import Settings
from . import words
from .drift import covers, foreign
from .replicas import Demand

Pods = Literal["as they are", "replaced", "begun anew", "taken back"]

_DROPPED_FOR = timedelta(seconds=10)
"""KubeRay looks at a RayService every 2 s, and notes in one look that a cluster is dropped."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A RayCluster was made from this."""

    made: Made
    application: dict[str, Any]
    """This Serve application goes with these pods. It is without the deployment's options."""


@dataclass(frozen=True, slots=True)
class Around:
    """These facts about a RayService are not in the object itself."""

    with_pods: frozenset[str] = frozenset()
    """These RayClusters have pods that are not ending."""
    can_drop: bool = True
    """We may write the status of RayServices."""
    tolerated: str = ""
    """These fields of the rayClusterConfig came back at once when they were removed, written as
    `drift.foreign` does."""
    token_secret: str = ""
    """This Secret holds the token of a new cluster. If it is empty, the cluster gets the token that the namespace
    shares."""


@dataclass(frozen=True, slots=True)
class Rollout:
    made: Made
    """The RayService is to say this."""
    application: dict[str, Any]
    pods: Pods
    waiting: str = ""
    """This says why a replacement is not begun, and what lets it begin."""
    drop: str = ""
    """This is the second RayCluster, if it is to be given up."""
    deletion_delay_s: int = 0
    notes: dict[str, str] = field(default_factory=dict)
    """They become annotations of the RayService."""


def first(model: Model, settings: Settings, around: Around) -> Rollout:
    """Returns the roll-out that makes a RayService."""
    asked = form.asked_hash(model, settings)
    notes = _notes(word=words.spent_now(model, asked=asked, spent="", begins=True))
    made = form.new(model, settings, around.token_secret)
    return Rollout(made, build.application(model), "begun anew", notes=notes)


def decide(model: Model, wanted: Demand, live: Live, settings: Settings, around: Around, *, now: datetime) -> Rollout:
    """Returns the next step for a RayService that is there."""
    it = _situation(model, wanted, live, settings, around)
    choice = _choose(it)
    begins = choice.pods in ("replaced", "begun anew")
    # A change by hand makes KubeRay drop the second cluster, as a new text does.
    drops = bool(choice.drop) or begins or (it.drifted and not live.pending_ready)
    dropped = _dropped(live, around, now, given_up=live.pending if drops else "")
    serves = bool(live.active)
    delay = settings.ray.stream_limit_s
    if not serves or (dropped and (drops or not live.pending_up)):
        delay = 0  # what is dropped has never served
    return Rollout(
        choice.origin.made,
        choice.origin.application,
        choice.pods,
        waiting=choice.waiting,
        drop=choice.drop,
        deletion_delay_s=delay,
        notes=_notes(
            others=_others_then(it, choice),
            dropped=dropped,
            allowed=it.asked if serves and it.approved and not it.back else "",
            word=words.spent_now(model, asked=it.asked, spent=it.spent, begins=begins),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Situation:
    model: Model
    wanted: Demand
    live: Live
    around: Around
    asked: str
    """This is the hash of the pods that the Model asks for."""
    new: Origin
    said: Origin
    """The RayService says this, except for changes by hand."""
    drifted: bool
    """Somebody has changed the RayService by hand."""
    others: dict[str, Origin | None]
    serving: Origin | None
    """The first cluster was made from this. None means that there is none, or that nobody knows."""
    said_is_asked: bool
    back: bool
    """The first cluster is what the Model asks for."""
    approved: bool
    spent: str


@dataclass(frozen=True, slots=True)
class _Choice:
    origin: Origin
    pods: Pods = "as they are"
    waiting: str = ""
    drop: str = ""


def _situation(model: Model, wanted: Demand, live: Live, settings: Settings, around: Around) -> _Situation:
    asked = form.asked_hash(model, settings)
    app = build.application(model)
    said = Origin(form.running(live, model, settings), live.bare_application or app)
    new = Origin(form.new(model, settings, around.token_secret), app)
    added = foreign(live.cluster, said.made.config)
    drifted = not covers(live.cluster, said.made.config) or added not in ("", around.tolerated)
    others = _others(live, said, drifted=drifted)
    serving: Origin | None = None
    if live.active in others:
        serving = others[live.active]
    elif live.active and not live.pending:
        serving = said
    back = serving is not None and form.is_as_asked(serving.made, model, settings)
    if serving is not None and back:
        serving = Origin(serving.made, app)
    allowed, spent = live.annotations.get(build.ANNOTATION_ALLOWED, ""), live.annotations.get(build.ANNOTATION_WORD, "")
    approved = (
        allowed == asked
        or words.allows(model, settings, asked=asked, spent=spent)
        or (
            bool(live.pending)
            and bool(allowed)
            and said.made.stamp.startswith(f"{allowed}-")
            and _costs_the_same(new, said)
        )
    )
    return _Situation(
        model=model,
        wanted=wanted,
        live=live,
        around=around,
        asked=asked,
        new=new,
        said=said,
        drifted=drifted,
        others=others,
        serving=serving,
        said_is_asked=form.is_as_asked(said.made, model, settings),
        back=back,
        approved=approved,
        spent=spent,
    )


def _choose(it: _Situation) -> _Choice:
    """Chooses what the RayService is to say next."""
    asked = _Choice(Origin(it.said.made, it.new.application)) if it.said_is_asked else None
    if it.wanted.mode == "deleting":
        return _return(it, _Choice(it.said))
    if not it.live.active:
        return asked or _Choice(it.new, "begun anew")
    if it.live.pending_ready:
        return asked or _Choice(it.said)  # it takes over in this moment
    if it.back:
        return _return(it, asked or _Choice(it.said))
    running = it.wanted.mode == "running"
    if asked is not None and (it.approved or not running or it.serving is None):
        return asked  # on its way
    if asked is None and (it.approved or (not running and _is_empty(it.model))):
        return _Choice(it.new, "replaced")
    choice = _return(it, asked or _Choice(it.said))
    # What is to be without replicas is not asked about: it is replaced when the last one has gone.
    return replace(choice, waiting=_ask(it.model, it.asked, it.spent)) if running and choice is not asked else choice


def _return(it: _Situation, otherwise: _Choice) -> _Choice:
    """Returns to the first cluster as it is, without the second one, if that is possible."""
    serving, live = it.serving, it.live
    if serving is None or live.pending_ready:
        return otherwise
    if not live.pending:
        return _Choice(serving)
    if it.around.can_drop:
        return _Choice(serving, "taken back", drop=live.pending)
    # KubeRay makes a third cluster in the second one's place. It takes no more than that.
    third = it.back and it.said.made.stamp != serving.made.stamp
    return _Choice(serving, "replaced") if third else otherwise


def _is_empty(model: Model) -> bool:
    """Tells if no replica runs, as far as was seen."""
    return model.status.replicas == 0


def _costs_the_same(new: Origin, old: Origin) -> bool:
    """Tells if both take equal resources. Then a replacement that was approved and has not taken over yet may be
    exchanged for the new one without another word.
    """

    def cost(origin: Origin) -> Any:
        template = origin.made.config["workerGroupSpecs"][0]["template"]["spec"]
        options = (origin.application.get("args") or {}).get("options") or {}
        bundles = (options.get("placement_group_config") or {}).get("bundles") or []
        return [container.get("resources") for container in template["containers"]], len(bundles)

    try:
        return bool(cost(new) == cost(old))
    except (KeyError, IndexError, TypeError, AttributeError):
        return False


def _ask(model: Model, asked: str, spent: str) -> str:
    spec = model.spec
    gpus = spec.gpus_per_replica * max(spec.replicas, 1)
    cost = f"a second set of pods, with {gpus} {spec.gpu.resource_name} more" if gpus else "a second set of pods"
    old = (
        " The annotation holds a number, as older releases asked for. A number approves nothing."
        if words.is_of_an_older_release(model)
        else ""
    )
    return (
        f"The change of the pods takes {cost}, until the second set has taken over from the first.{old} "
        f"To allow it: {words.command(model, asked, spent=spent)}"
    )


def _others(live: Live, said: Origin, *, drifted: bool) -> dict[str, Origin | None]:
    """Returns the RayClusters that were not made from what the RayService says now.

    None stands for a cluster of unknown origin, because somebody's change by hand or an older release came between.
    """
    written = _read(live.annotations.get(build.ANNOTATION_OTHERS, ""))
    others = {name: origin for name, origin in written.items() if name in (live.active, live.pending)}
    if not live.active:
        return {}
    if live.active not in others:
        if live.pending and build.ANNOTATION_ALLOWED not in live.annotations:
            others[live.active] = None  # a release before this one began a replacement
        elif drifted:
            # If KubeRay has seen the change by hand and has no second cluster for it, the first was made from it.
            others[live.active] = said if live.pending or not live.observed else None
    elif others[live.active] is None and not live.pending and live.observed and not drifted:
        del others[live.active]  # KubeRay says that it is what the RayService says
    return others


def _others_then(it: _Situation, choice: _Choice) -> dict[str, Origin | None]:
    live, others = it.live, dict(it.others)
    if not live.active:
        return {}
    if choice.drop or choice.origin.made.stamp != it.said.made.stamp:
        if live.active not in others:
            others[live.active] = it.serving
        if live.pending and live.pending not in others:
            others[live.pending] = None if it.drifted else it.said
    first = others.get(live.active)
    settled = live.observed and not live.pending and not it.drifted
    if settled and first is not None and first.made.stamp == it.said.made.stamp == choice.origin.made.stamp:
        return {}
    return others


def _dropped(live: Live, around: Around, now: datetime, *, given_up: str) -> str:
    """Returns the note of the cluster that was given up. It is empty when KubeRay has surely noted it, and its pods
    have gone.
    """
    note = live.annotations.get(build.ANNOTATION_DROPPED, "")
    name, _, at = note.partition(" ")
    try:
        recent = now - datetime.fromisoformat(at) < _DROPPED_FOR
    except (ValueError, TypeError):
        recent, name = False, ""
    if given_up:
        return note if recent and name == given_up else f"{given_up} {rfc3339(now)}"
    # As long as KubeRay has not acted yet, it is still the second cluster.
    there = recent or (name in around.with_pods and name != live.pending)
    return note if there and name != live.active else ""


def _notes(
    *, others: Mapping[str, Origin | None] | None = None, dropped: str = "", allowed: str = "", word: str = ""
) -> dict[str, str]:
    written = {name: origin and _written(origin) for name, origin in sorted((others or {}).items())}
    return {
        build.ANNOTATION_OTHERS: json.dumps(written, sort_keys=True) if written else "",
        build.ANNOTATION_DROPPED: dropped,
        build.ANNOTATION_ALLOWED: allowed,
        build.ANNOTATION_WORD: word,
    }


def _written(origin: Origin) -> dict[str, Any]:
    made = origin.made
    return {"stamp": made.stamp, "config": made.config, "recorded": made.recorded, "application": origin.application}


def _read(text: str) -> dict[str, Origin | None]:
    """Returns nothing for text that cannot be read."""
    try:
        written = json.loads(text) if text else {}
        return {str(name): _origin(one) if one is not None else None for name, one in written.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _origin(written: dict[str, Any]) -> Origin:
    config, application = written["config"], written["application"]
    if not isinstance(config, dict) or not isinstance(application, dict):
        raise TypeError("no cluster and application")
    return Origin(Made(config, str(written["stamp"]), recorded=bool(written["recorded"])), application)
