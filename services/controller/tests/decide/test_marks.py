"""Gateways' marks by the controller's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudach_controller.decide.marks import Marks
from cloudach_controller.decide.replicas import demand
from cloudach_model_api.model import Model
from cloudach_model_api.use import ModelUse

KEY = ("llm", "qwen")
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
IDLE_S = 600
WAKE, LAST = "wakeRequestedAt", "lastRequestAt"


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def marked(written: float | None = None, **marks: float) -> dict[str, Any]:
    """A ModelUse with these marks, which a gateway wrote by the API server's clock at `written`."""
    fields = [] if written is None else [{"manager": "cloudach-gateway", "time": at(written)}]
    own = {"manager": "cloudach-controller", "time": at(0)}
    metadata = {"name": "qwen", "creationTimestamp": at(-90_000), "managedFields": [own, *fields]}
    return {"metadata": metadata, "status": {name: at(seconds) for name, seconds in marks.items()}}


def mode(marks: Marks, obj: dict[str, Any], *, state: str, after_s: float = 0) -> str:
    condition = {
        "type": "Ready",
        "status": "False" if state == "Sleeping" else "True",
        "reason": "Sleeping" if state == "Sleeping" else "ReplicasReady",
        "message": "",
        "lastTransitionTime": at(-80_000),
    }
    model = Model.from_object(
        {
            "metadata": {"name": "qwen", "namespace": "llm", "creationTimestamp": at(-90_000)},
            "spec": {
                "source": {"simulator": {}},
                "autoscaling": {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": IDLE_S},
            },
            "status": {"state": state, "conditions": [condition]},
        }
    )
    now = NOW + timedelta(seconds=after_s)
    use = marks.by_our_clock(KEY, ModelUse.from_object(obj), obj, now)
    return demand(model, now, use).mode


@pytest.mark.parametrize("behind_s", [0, 2 * IDLE_S, 80_000])
def test_a_mark_wakes_however_far_the_gateways_clock_is_behind(behind_s: float) -> None:
    marks = Marks()
    assert mode(marks, marked(**{LAST: -70_000}), state="Sleeping") == "sleeping"
    wanted = marked(**{WAKE: -behind_s})
    assert mode(marks, wanted, state="Sleeping") == "running"
    assert mode(marks, wanted, state="Deploying", after_s=1700) == "running", "so long a start may take"
    assert mode(marks, wanted, state="Ready", after_s=1801) == "sleeping"


def test_a_mark_that_was_there_when_the_controller_began_counts_from_when_it_was_written() -> None:
    assert mode(Marks(), marked(-20, **{WAKE: -5000}), state="Sleeping") == "running"
    assert mode(Marks(), marked(-20, **{LAST: -5000}), state="Ready") == "running", "it is in use"
    assert mode(Marks(), marked(-4000, **{WAKE: -5000}), state="Sleeping") == "sleeping"
    assert mode(Marks(), marked(**{WAKE: -5000}), state="Sleeping") == "sleeping"


def test_a_model_in_use_stays_awake_also_by_a_clock_that_is_behind() -> None:
    marks = Marks()
    mode(marks, marked(), state="Ready")
    assert mode(marks, marked(**{LAST: -5000}), state="Ready") == "running"
    assert mode(marks, marked(**{LAST: -4940}), state="Ready", after_s=60) == "running"
    assert mode(marks, marked(**{LAST: -4940}), state="Ready", after_s=60 + IDLE_S + 61) == "sleeping"


def test_one_mark_does_not_make_the_other_new() -> None:
    """Else a Model that is used would be told to have been woken now."""
    marks = Marks()
    marks.by_our_clock(KEY, ModelUse.from_object(marked(**{WAKE: -5000})), None, NOW)
    use = marks.by_our_clock(KEY, ModelUse.from_object(marked(**{WAKE: -5000, LAST: -5})), None, NOW)
    assert use is not None
    assert use.status.wake_requested_at == NOW - timedelta(seconds=5000)
    assert use.status.last_request_at == NOW


def test_a_mark_that_is_ahead_stays_as_it_is() -> None:
    marks = Marks()
    marks.by_our_clock(KEY, None, None, NOW)
    use = marks.by_our_clock(KEY, ModelUse.from_object(marked(**{WAKE: 600})), None, NOW)
    assert use is not None
    assert use.status.wake_requested_at == NOW + timedelta(seconds=600)


@pytest.mark.parametrize("ahead_s", [2 * 3600, 80_000])
def test_a_mark_wakes_also_by_a_clock_that_is_far_ahead_and_keeps_no_model_awake_by_it(ahead_s: float) -> None:
    marks = Marks()
    assert mode(marks, marked(**{LAST: -70_000}), state="Sleeping") == "sleeping"
    wanted = marked(**{WAKE: ahead_s})
    assert mode(marks, wanted, state="Sleeping") == "running"
    assert mode(marks, wanted, state="Ready", after_s=IDLE_S + 1) == "sleeping"
    assert mode(Marks(), marked(-20, **{WAKE: ahead_s}), state="Sleeping") == "running", "after a restart"
    assert mode(Marks(), marked(-4000, **{WAKE: ahead_s}), state="Sleeping") == "sleeping"
