"""The status of a Model is made from what it should be and what was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from cloudach_model_api.claims import NOTHING, Grant
from cloudach_model_api.model import InvalidModel, Model
from cloudach_model_api.names import LABEL_MODEL
from cloudach_model_api.reasons import MEANINGS, Reason
from cloudach_model_api.status import Condition, ConditionType, ModelStatus, State, set_condition

from ..settings import Settings
from .causes import FATAL, Cause, cause
from .kuberay import behind, reachable
from .observation import Observation, Replicas, active_head, of_the_active_cluster, replacing
from .plan import Plan
from .progress import last_step, stalled
from .replicas import Demand

_NOTHING = Replicas(0, 0, 0, 0, "NOT_STARTED", "", "")


@dataclass(frozen=True, slots=True)
class _Said:
    reason: Reason
    message: str
    holds: bool


_NOT_TAKEN = _Said(Reason.NOT_TAKEN, MEANINGS[Reason.NOT_TAKEN], False)


def status(
    model: Model,
    wanted: Demand,
    done: Plan,
    seen: Observation,
    settings: Settings,
    *,
    now: datetime,
    grant: Grant = NOTHING,
    engine_key: str | None = None,
) -> ModelStatus:
    """`grant` holds the names that the Model gets. `engine_key` is the id of its key."""
    old = model.status
    view = seen.replicas
    if view is None or view.building:
        view = _last_known(old, seen)
    running = view
    if not reachable(seen):
        view = replace(view, ready=0, starting=view.starting + view.ready)
    desired = _desired(wanted, view)
    late = _late(seen, settings, now)
    taken = name_taken(grant)
    unserved = taken is not None and not grant.names
    enough = running.settled and running.ready >= desired and not replacing(seen.ray_service)
    serving = cause(of_the_active_cluster(seen), enough=enough)
    wrong = taken if unserved else serving or cause(seen, enough=enough) or late
    if wrong is None and _fewer(old, view, desired, wanted):
        words = f"{MEANINGS[Reason.FEWER_REPLICAS]} {view.ready} of {desired} answer."
        wrong = Cause(Reason.FEWER_REPLICAS, words)
    wrong = wrong or taken
    in_force = not (unserved or seen.foreign or seen.refused or seen.kuberay_missing)
    in_order = in_force and not seen.exposed
    if wanted.mode != "running" and wrong is not None and in_order and wrong not in (taken, late):
        wrong = None  # nothing should run, so nothing is amiss
    state = _state(wanted, view, desired, wrong, seen, fatal=unserved or wrong in (serving, None))
    if seen.contested:
        wrong = wrong or Cause(Reason.FIELDS_CONTESTED, MEANINGS[Reason.FIELDS_CONTESTED])
    progressing = _progressing(model, wanted, done, view, desired, seen) if in_force else _NOT_TAKEN
    generation = model.metadata.generation
    since = last_step(
        old, moves=progressing.holds, reason=progressing.reason, generation=generation, view=view, now=now
    )
    stall = stalled(since, now, settings.rollout.progress_deadline_s)
    if stall:
        progressing = replace(progressing, message=f"{progressing.message} {stall}")
        wrong = wrong or Cause(Reason.PROGRESS_DEADLINE, f"{MEANINGS[Reason.PROGRESS_DEADLINE]} {stall}")
    conditions: tuple[Condition, ...] = old.conditions
    for kind, said in (
        (ConditionType.READY, _ready(wanted, view, desired, running)),
        (ConditionType.PROGRESSING, progressing),
        (ConditionType.DEGRADED, _degraded(wrong, grant)),
    ):
        conditions = set_condition(
            conditions,
            kind,
            said.holds,
            said.reason,
            said.message[:32_000],
            generation=model.metadata.generation,
            now=now,
        )
    names = {"name": model.metadata.name, "namespace": model.metadata.namespace}
    return ModelStatus(
        observed_generation=model.metadata.generation if in_force else old.observed_generation,
        id=model.id,
        names=grant.held,
        state=state,
        replicas=view.total,
        ready_replicas=view.ready,
        desired_replicas=desired,
        selector=_selector(model, seen),
        endpoint=settings.ray.endpoint_url.format(**names),
        upstream_model=model.upstream_model,
        adapters=_loaded(model, running),
        engine_key=engine_key,
        wake_requested_at=wanted.wake_requested_at,
        progressed_at=since,
        conditions=conditions,
    )


def invalid(old: ModelStatus, error: InvalidModel, *, generation: int, now: datetime) -> ModelStatus:
    """Returns the status of a Model with a wrong spec: as before, and Degraded names the fields. What ran goes on."""
    fields = "; ".join(map(str, error.errors))
    conditions = set_condition(
        old.conditions,
        ConditionType.DEGRADED,
        True,
        Reason.INVALID_SPEC,
        f"{MEANINGS[Reason.INVALID_SPEC]} {fields}",
        generation=generation,
        now=now,
    )
    conditions = set_condition(
        conditions,
        ConditionType.PROGRESSING,
        _NOT_TAKEN.holds,
        _NOT_TAKEN.reason,
        _NOT_TAKEN.message,
        generation=generation,
        now=now,
    )
    if old.condition(ConditionType.READY) is None:
        words = MEANINGS[Reason.NO_REPLICA_READY]
        conditions = set_condition(
            conditions, ConditionType.READY, False, Reason.NO_REPLICA_READY, words, generation=generation, now=now
        )
    state = State.DEGRADED if old.ready_replicas else State.FAILED
    return old.model_copy(update={"state": state, "conditions": conditions})


def name_taken(grant: Grant) -> Cause | None:
    """Returns why the Model is not served by all the names that it asks for; None if it is."""
    if not grant.refused:
        return None
    first = grant.refused[0]
    taken = f"{first.name!r} belongs to {'/'.join(first.owner)}." if first.owner else f"{first.name!r} is reserved."
    more = f" Further names that are taken: {len(grant.refused) - 1}." if len(grant.refused) > 1 else ""
    return Cause(Reason.NAME_TAKEN, f"{MEANINGS[Reason.NAME_TAKEN]} {taken}{more}")


def _loaded(model: Model, view: Replicas) -> tuple[str, ...] | None:
    """Returns adapters that every replica has loaded; None where the Model has had none.

    While replicas are replaced there are old ones and new ones, so only what both have counts. Without any replica it
    is all that the next one will have. While Serve reads a configuration, the status may have called replicas
    unreachable that run on, so its count proves nothing.
    """
    if model.spec.lora is None and not model.status.adapters:
        return None
    if view.adapters is None:  # Ray was not asked, so the list stays as it was
        return model.status.adapters or ()
    wanted = {adapter.name for adapter in model.spec.adapters}
    none_runs = not view.ready and not view.building
    both = view.adapters if view.settled or none_runs else view.adapters & set(model.status.adapters or ())
    return tuple(sorted(both & wanted))


def _last_known(old: ModelStatus, seen: Observation) -> Replicas:
    """Takes what ran to run on where the dashboard is silent. Where there is no RayService, nothing runs."""
    told = seen.replicas
    if seen.ray_service is None or not (seen.unreachable or told is not None):
        return _NOTHING
    ready, total = old.ready_replicas or 0, old.replicas or 0
    last = Replicas(old.desired_replicas or 0, ready, max(total - ready, 0), 0, "RUNNING" if ready else "", "", "")
    if told is None:
        return last
    return replace(
        last, application=told.application, deployment="UPDATING", adapters=told.adapters, building=told.building
    )


def _desired(wanted: Demand, view: Replicas) -> int:
    if wanted.mode != "running":
        return 0
    return view.target or wanted.replicas if wanted.autoscaled else wanted.replicas


def _fewer(old: ModelStatus, view: Replicas, desired: int, wanted: Demand) -> bool:
    """Tells if the Model had all its replicas and has lost some. A Model that wants more than before has lost none."""
    had = old.desired_replicas == desired and old.state in (State.READY, State.DEGRADED)
    return wanted.mode == "running" and had and 0 < view.ready < desired


def _state(
    wanted: Demand, view: Replicas, desired: int, wrong: Cause | None, seen: Observation, *, fatal: bool
) -> State:
    """Returns the state in one word. `fatal` says if what is wrong may keep the Model from answering."""
    if wanted.mode == "deleting":
        return State.DELETING
    if wanted.mode != "running":
        none = State.OFF if wanted.mode == "off" else State.SLEEPING
        return State.SCALING if view.total else none
    if view.ready == 0:
        if wrong is not None and fatal and wrong.reason in FATAL:
            return State.FAILED
        return State.DEPLOYING if seen.pods and (wrong is None or not fatal) else State.PENDING
    if wrong is not None:
        return State.DEGRADED
    return State.READY if view.ready == desired == view.total else State.SCALING


def _selector(model: Model, seen: Observation) -> str:
    """Selects the pods that serve, because idle ones of a dropped cluster would halve the load that an HPA sees."""
    head = active_head(seen.ray_service)
    cluster = f",ray.io/cluster={head.cluster}" if head is not None else ""
    return f"{LABEL_MODEL}={model.metadata.name},ray.io/node-type=worker{cluster}"


def _late(seen: Observation, settings: Settings, now: datetime) -> Cause | None:
    """Returns a cause if KubeRay has not acted for so long that somebody has to look."""
    found = behind(seen)
    if found is None or not found.is_late(now, settings.ray.kuberay_late_s):
        return None
    return Cause(Reason.KUBERAY_BEHIND, f"{MEANINGS[Reason.KUBERAY_BEHIND]} {found}")


def _ready(wanted: Demand, view: Replicas, desired: int, running: Replicas) -> _Said:
    """`running` is what Serve says, even if the replicas cannot be reached."""
    if wanted.mode == "deleting":
        return _Said(Reason.DELETING, MEANINGS[Reason.DELETING], False)
    if wanted.mode != "running":
        reason = Reason.SLEEPING if wanted.mode == "sleeping" else Reason.SCALED_TO_ZERO
        return _Said(reason, MEANINGS[reason], False)
    if view.ready:
        return _Said(Reason.REPLICAS_READY, f"{view.ready} of {desired} replicas answer.", True)
    if running.ready:
        words = f"{MEANINGS[Reason.NOT_REACHABLE]} {running.ready} of {desired} run."
        return _Said(Reason.NOT_REACHABLE, words, False)
    return _Said(Reason.NO_REPLICA_READY, MEANINGS[Reason.NO_REPLICA_READY], False)


def _progressing(model: Model, wanted: Demand, done: Plan, view: Replicas, desired: int, seen: Observation) -> _Said:
    if wanted.mode != "running":
        if view.total:
            left = f"{MEANINGS[Reason.DRAINING]} Replicas that are left: {view.total}. {_behind(seen)}"
            return _Said(Reason.DRAINING, left.strip(), True)
        return _up_to_date(seen)
    if done.waiting:
        return _Said(Reason.REPLACEMENT_PENDING, done.waiting, False)  # these words say what it takes in this case
    if done.change == "replacement" or replacing(seen.ray_service):
        return _Said(Reason.REPLACING, f"{MEANINGS[Reason.REPLACING]} {_behind(seen)}".strip(), True)
    if "DEPLOY_FAILED" in (view.application, view.deployment):
        return _Said(
            Reason.ROLLOUT_FAILED, f"{MEANINGS[Reason.ROLLOUT_FAILED]} {view.ready} of {desired} answer.", False
        )
    if view.ready == 0:
        was = model.status.state in (State.SLEEPING, State.PENDING, State.DEPLOYING)
        waking = was and wanted.wake_requested_at is not None
        reason = Reason.WAKING if waking else Reason.DEPLOYING
        return _Said(reason, f"{MEANINGS[reason]} {view.ready} of {desired} replicas answer.", True)
    if view.leaving:
        return _Said(Reason.DRAINING, f"{MEANINGS[Reason.DRAINING]} Replicas that go: {view.leaving}.", True)
    if view.deployment == "UPDATING" or done.change == "rolling":
        return _Said(Reason.DEPLOYING, f"{MEANINGS[Reason.DEPLOYING]} Replicas are replaced one by one.", True)
    if view.ready != desired or view.total != desired:
        return _Said(Reason.SCALING, f"{MEANINGS[Reason.SCALING]} {view.ready} of {desired} answer.", True)
    if seen.replicas is not None and not view.settled:
        return _Said(
            Reason.DEPLOYING,
            f"{MEANINGS[Reason.DEPLOYING]} Serve says that the application is {view.application.lower()}.",
            True,
        )
    return _up_to_date(seen)


def _up_to_date(seen: Observation) -> _Said:
    """Is called when all that can be seen is as it should be. KubeRay may still have to act on something."""
    left = behind(seen)
    if left is not None:
        return _Said(Reason.KUBERAY_BEHIND, str(left), True)
    return _Said(Reason.UP_TO_DATE, MEANINGS[Reason.UP_TO_DATE], False)


def _behind(seen: Observation) -> str:
    if not seen.behind:
        return ""
    return f"The number of replicas of the first set waits for the second one to take over: {seen.behind}"


def _degraded(wrong: Cause | None, grant: Grant) -> _Said:
    if wrong is None and grant.wanted:
        name, who = next(iter(grant.wanted.items()))
        return _Said(Reason.NAME_WANTED, f"{MEANINGS[Reason.NAME_WANTED]} {'/'.join(who)} asks for {name!r}.", False)
    if wrong is None:
        return _Said(Reason.AS_EXPECTED, MEANINGS[Reason.AS_EXPECTED], False)
    return _Said(wrong.reason, wrong.message, True)
