"""How many replicas a Model wants: by its spec, by its autoscaler, and by who uses it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cloudach_controller.decide.replicas import Demand, demand
from cloudach_controller.resources.ray_service import may_sleep_since
from cloudach_model_api.model import Model
from cloudach_model_api.use import ModelUse

from .plans import NOW, made, model, override, planned, served, told

AUTOSCALED: dict[str, Any] = {"autoscaling": {"maxReplicas": 8}, "replicas": 2}


@pytest.mark.parametrize(
    ("spec", "target", "begin"),
    [
        (AUTOSCALED, 5, 2),  # nothing new: the text stays the same, or Serve would go back to it
        (AUTOSCALED | {"drainSeconds": 5}, 5, 5),  # something else is new: on from where it is
        (AUTOSCALED | {"drainSeconds": 5}, None, 2),
        (AUTOSCALED | {"replicas": 3}, 5, 3),  # kubectl scale: on from there
        (AUTOSCALED | {"autoscaling": {"maxReplicas": 4}}, 5, 4),  # new bounds
        (AUTOSCALED | {"autoscaling": {"minReplicas": 6, "maxReplicas": 8}}, 5, 6),
    ],
)
def test_where_the_autoscaler_goes_on_from(spec: dict[str, Any], target: int | None, begin: int) -> None:
    before = made(model(AUTOSCALED))
    done = planned(model(spec, generation=2), before, target=target)
    found = override(done.manifest or before)["autoscaling_config"]
    assert found["initial_replicas"] == begin


@pytest.mark.parametrize(
    ("spec", "meta", "expected"),
    [
        ({"replicas": 3}, {}, Demand("running", 3)),
        ({"replicas": 0}, {}, Demand("off", 0)),
        ({"autoscaling": {"maxReplicas": 4}}, {}, Demand("running", 2, autoscaled=True)),
        ({"autoscaling": {"maxReplicas": 1}}, {}, Demand("running", 1, autoscaled=True)),
    ],
)
def test_demand(spec: dict[str, Any], meta: dict[str, Any], expected: Demand) -> None:
    assert demand(model(spec, **meta), NOW) == expected


ZERO: dict[str, Any] = {"autoscaling": {"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 600}}


def at(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).isoformat()


@pytest.mark.parametrize(
    ("marks", "mode"),
    [
        ({"creationTimestamp": at(599)}, "running"),
        ({"creationTimestamp": at(601)}, "sleeping"),
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/wake-requested-at": at(5)}}, "running"),
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/wake-requested-at": at(700)}}, "sleeping"),
        # Gateways write their mark once a minute at most, so it may be that much older than the last request.
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/last-request-at": at(650)}}, "running"),
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/last-request-at": at(661)}}, "sleeping"),
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/last-request-at": "soon"}}, "sleeping"),
    ],
)
def test_sleeping(marks: dict[str, Any], mode: str) -> None:
    found = demand(model(ZERO, **marks), NOW)
    assert found.mode == mode
    assert (found.look_again_s is not None) == (mode == "running")


def use(created: float = 9999, **told: str) -> ModelUse:
    metadata = {"name": "qwen", "namespace": "llm", "creationTimestamp": at(created)}
    return ModelUse.from_object({"metadata": metadata, "status": told})


OLD_MARK = {"cloudach.dev/wake-requested-at": at(9998)}


@pytest.mark.parametrize(
    ("told", "marks", "mode"),
    [
        (use(), {}, "sleeping"),
        (use(wakeRequestedAt=at(5)), {}, "running"),
        (use(wakeRequestedAt=at(5)), {"annotations": OLD_MARK}, "running"),
        (use(wakeRequestedAt=at(700)), {}, "sleeping"),
        (use(lastRequestAt=at(650)), {}, "running"),
        (use(lastRequestAt=at(661)), {}, "sleeping"),
        (use(lastRequestAt=at(900)), {"annotations": {"cloudach.dev/last-request-at": at(650)}}, "running"),
        (use(lastRequestAt="soon"), {}, "sleeping"),
        (use(wakeRequestedAt=at(-3000)), {}, "running"),  # by a clock that is ahead
        (use(wakeRequestedAt="2099-01-01T00:00:00Z", lastRequestAt="2099-01-01T00:00:00Z"), {}, "sleeping"),
        (use(created=599), {}, "running"),  # before that no gateway could say that it is in use
    ],
)
def test_what_gateways_tell_of_its_use(told: ModelUse, marks: dict[str, Any], mode: str) -> None:
    assert demand(model(ZERO, creationTimestamp=at(9999), **marks), NOW, told).mode == mode


def test_a_new_object_for_marks_wakes_no_model() -> None:
    """As in the upgrade that brings these objects, else all sleeping Models would want their GPUs at once."""
    asleep = {"type": "Ready", "status": "False", "reason": "Sleeping", "message": "", "lastTransitionTime": at(100)}
    obj = {
        "metadata": {"name": "m", "namespace": "n", "creationTimestamp": at(9999)},
        "spec": {"source": {"simulator": {}}, **ZERO},
        "status": {"state": "Sleeping", "conditions": [asleep]},
    }
    assert demand(Model.from_object(obj), NOW, use(created=1)).mode == "sleeping"
    assert demand(Model.from_object(obj), NOW, unmade=True).mode == "sleeping"


def test_no_model_sleeps_before_its_object_for_marks_is_made() -> None:
    """Else the controller that makes it would put to sleep whatever is in use."""
    assert demand(model(ZERO, creationTimestamp=at(9999)), NOW, unmade=True).mode == "running"


@pytest.mark.parametrize(
    ("model_s", "use_s", "mode"),
    [
        (9999, 1500, "running"),  # a stream of 960 s at a gateway of the release before, and 600 s of idleness
        (9999, 1600, "sleeping"),
        (1520, 1500, "sleeping"),  # made with its Model: all gateways could tell
    ],
)
def test_streams_at_gateways_that_cannot_tell_of_them_end_first(model_s: float, use_s: float, mode: str) -> None:
    found = demand(model(ZERO, creationTimestamp=at(model_s)), NOW, use(created=use_s), stream_s=960)
    assert found.mode == mode


def test_no_model_sleeps_where_gateways_cannot_tell_of_its_use() -> None:
    found = demand(model(ZERO, creationTimestamp=at(9999)), NOW, untold=True)
    assert (found.mode, found.look_again_s) == ("running", None)


def test_the_idle_time_counts_from_when_the_spec_lets_it_sleep() -> None:
    """Whatever gateways have told before: they tell nothing of a Model that may not sleep."""

    def seen(there: dict[str, Any] | None, seconds: float) -> str:
        since = may_sleep_since(there, NOW + timedelta(seconds=seconds))
        return demand(busy, NOW + timedelta(seconds=seconds), use(lastRequestAt=at(7000)), may_sleep_since=since).mode

    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "ReplicasReady",
        "message": "",
        "lastTransitionTime": at(9000),
    }
    busy = told(model(ZERO, creationTimestamp=at(9999)), state="Ready", replicas=2, conditions=[ready])
    before = made(model({"autoscaling": {"maxReplicas": 4}}))
    assert seen(before, 0) == "running"
    noted = planned(busy, before, since=may_sleep_since(before, NOW)).manifest
    assert (seen(noted, 599), seen(noted, 601)) == ("running", "sleeping")
    # There and back again: what was noted first is over.
    never = planned(model({"autoscaling": {"maxReplicas": 4}}), served(noted)).manifest
    assert seen(never, 5000) == "running"
    # Hands on the note neither stop the looks nor keep it awake.
    for hands in ("2026-11-01", "2026-11-01T11:00:00", "2099-01-01T00:00:00Z", "soon"):
        changed = {"metadata": {"annotations": {"cloudach.dev/may-sleep-since": hands}}}
        assert may_sleep_since(changed, NOW) == NOW
    # A controller that does not find the note wakes nobody.
    asleep = ready | {"status": "False", "reason": "Sleeping"}
    busy = told(busy, state="Sleeping", replicas=0, conditions=[asleep])
    assert seen(before, 0) == "sleeping"


@pytest.mark.parametrize(
    ("state", "ready_since", "woken", "mode"),
    [
        ("Deploying", None, 1700, "running"),  # it takes long to load, and nobody has gone away
        ("Pending", None, 1700, "running"),
        ("Deploying", None, 1900, "sleeping"),  # it will not come up, and holds GPUs
        ("Sleeping", None, 1700, "sleeping"),
        ("Ready", 500, 1700, "running"),  # its time counts from when it could be used
        ("Ready", 700, 1700, "sleeping"),
    ],
)
def test_a_start_is_no_idleness(state: str, ready_since: int | None, woken: int, mode: str) -> None:
    status: dict[str, Any] = {"state": state}
    if ready_since is not None:
        condition = {"type": "Ready", "status": "True", "reason": "R", "message": ""}
        status["conditions"] = [{**condition, "lastTransitionTime": at(ready_since)}]
    marks = {"cloudach.dev/wake-requested-at": at(woken)}
    obj = {
        "metadata": {"name": "m", "namespace": "n", "creationTimestamp": at(9999), "annotations": marks},
        "spec": {"source": {"simulator": {}}, **ZERO},
        "status": status,
    }
    assert demand(Model.from_object(obj), NOW).mode == mode


def test_asleep_and_awake_are_changes_in_place() -> None:
    awake, asleep = model(ZERO, creationTimestamp=at(1)), model(ZERO, creationTimestamp=at(9999))
    done = planned(asleep, made(awake))
    assert done.change == "in place"
    again = planned(awake, done.manifest)
    assert again.change == "in place"
    assert override(again.manifest)["autoscaling_config"]["initial_replicas"] == 2
