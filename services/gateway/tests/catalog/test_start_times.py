"""Retry-After: how long a Model takes to start, as learned from those that have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudach_gateway.catalog import Absence, Resource, Why
from cloudach_gateway.catalog.cluster.entries import read, served
from cloudach_gateway.catalog.cluster.start_times import StartTimes
from cloudach_model_api import Model

OWN = Resource("serving", "llama")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ASLEEP = Absence(Why.ASLEEP)


def view(times: StartTimes, obj: dict[str, Any]) -> None:
    model = read(obj)
    assert isinstance(model, Model)
    entries, _ = served([model], ())
    times.learn({OWN: model}, {OWN: entries[0]})


def ready_at(moment: datetime) -> list[dict[str, Any]]:
    return [_ready("True", moment)]


def _ready(status: str, since: datetime) -> dict[str, Any]:
    when = since.isoformat().replace("+00:00", "Z")
    return {"type": "Ready", "status": status, "reason": "X", "message": "", "lastTransitionTime": when}


def woken(make_model: Any, asked: datetime, took_s: float) -> dict[str, Any]:
    stamp = {"cloudach.dev/wake-requested-at": asked.isoformat().replace("+00:00", "Z")}
    ready = ready_at(asked + timedelta(seconds=took_s))
    obj: dict[str, Any] = make_model("llama", annotations=stamp, conditions=ready)
    return obj


def test_waking_is_learned_from_the_model_itself(make_model: Any) -> None:
    """So a gateway that has just started knows it."""
    times = StartTimes()
    assert times.expected_s(OWN) is None
    view(times, woken(make_model, NOON, 80))
    assert times.expected_s(OWN) == 80
    assert times.retry_after_s(OWN, ASLEEP, waited_s=0, now=NOON) == 80
    assert times.retry_after_s(OWN, ASLEEP, waited_s=50, now=NOON) == 30


def test_a_model_that_is_late_is_late_for_longer(make_model: Any) -> None:
    times = StartTimes()
    view(times, woken(make_model, NOON, 20))
    assert times.retry_after_s(OWN, ASLEEP, waited_s=60, now=NOON) == 40
    assert times.retry_after_s(OWN, ASLEEP, waited_s=20, now=NOON) == 2


def test_the_usual_time_counts(make_model: Any) -> None:
    times = StartTimes()
    for hour, took in enumerate((10, 12, 500)):
        view(times, woken(make_model, NOON + timedelta(hours=hour), took))
        view(times, woken(make_model, NOON + timedelta(hours=hour), took))  # the same start, seen again
    assert times.expected_s(OWN) == 12


def test_a_start_that_was_watched(make_model: Any) -> None:
    times = StartTimes()
    starting = make_model("llama", state="Deploying", ready=0, conditions=[_ready("False", NOON)])
    view(times, starting)
    view(times, make_model("llama", conditions=ready_at(NOON + timedelta(seconds=45))))
    assert times.expected_s(OWN) == 45
    absence = Absence(Why.STARTING, NOON)
    assert times.retry_after_s(OWN, absence, waited_s=0, now=NOON + timedelta(seconds=15)) == 30


def test_a_start_is_learned_that_was_not_reachable_in_the_end(make_model: Any) -> None:
    times = StartTimes()
    view(times, make_model("llama", state="Deploying", ready=0, conditions=[_ready("False", NOON)]))
    not_reachable = {**_ready("False", NOON), "reason": "NotReachable"}
    view(times, make_model("llama", state="Deploying", ready=0, conditions=[not_reachable]))
    view(times, make_model("llama", conditions=ready_at(NOON + timedelta(seconds=45))))
    assert times.expected_s(OWN) == 45


def test_others_tell_where_nothing_is_known(make_model: Any) -> None:
    times = StartTimes()
    assert times.retry_after_s(Resource("serving", "other"), ASLEEP, waited_s=0, now=NOON) == 30
    view(times, woken(make_model, NOON, 70))
    assert times.retry_after_s(Resource("serving", "other"), ASLEEP, waited_s=0, now=NOON) == 70


def test_where_waiting_does_not_help_retries_are_not_asked_for(make_model: Any) -> None:
    times = StartTimes()
    view(times, woken(make_model, NOON, 5))
    for why in (Why.OFF, Why.STUCK):
        assert times.retry_after_s(OWN, Absence(why), waited_s=0, now=NOON) > 60


def test_who_is_gone_is_forgotten(make_model: Any) -> None:
    times = StartTimes()
    view(times, woken(make_model, NOON, 5))
    times.learn({}, {})
    assert times.expected_s(OWN) is None


@pytest.mark.parametrize("reason", ["NoGpuNodeFits", "QuotaExceeded", "VolumeMissing", "SecretMissing"])
def test_while_something_stands_in_the_way_the_pause_is_always_the_same(make_model: Any, reason: str) -> None:
    """The last start says nothing of when a node comes. With its time counted down all would come back at once."""
    times = StartTimes()
    view(times, woken(make_model, NOON - timedelta(hours=1), 60))
    degraded = {**_ready("True", NOON), "type": "Degraded", "reason": reason}
    obj = make_model("llama", state="Pending", ready=0, conditions=[_ready("False", NOON), degraded])
    view(times, obj)
    model = read(obj)
    assert isinstance(model, Model)
    (entry,), _ = served([model], ())
    assert entry.absence is not None
    pauses = {
        times.retry_after_s(OWN, entry.absence, waited_s=waited, now=NOON + timedelta(seconds=passed))
        for passed in (0, 30, 59, 60, 61, 300)
        for waited in (0, 45)
    }
    assert len(pauses) == 1
    assert 10 <= pauses.pop() <= 60, "SDKs do not wait longer"
    del degraded["reason"]
    unblocked = make_model("llama", state="Pending", ready=0, conditions=[_ready("False", NOON)])
    (entry,), _ = served([read(unblocked)], ())  # type: ignore[list-item]
    assert entry.absence is not None
    assert times.retry_after_s(OWN, entry.absence, waited_s=0, now=NOON + timedelta(seconds=20)) == 40
