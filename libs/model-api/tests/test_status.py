"""Conditions over time, and the status as it is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from cloudach_model_api import ConditionType, ModelStatus, Reason, State, set_condition
from cloudach_model_api.reasons import MEANINGS

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)


def test_the_time_moves_with_the_status_alone() -> None:
    kind = ConditionType.READY
    first = set_condition((), kind, False, Reason.NO_REPLICA_READY, "0 of 1", generation=1, now=NOON)
    same = set_condition(first, kind, False, Reason.WAKING, "soon", generation=2, now=LATER)
    assert (same[0].last_transition_time, same[0].reason, same[0].observed_generation) == (NOON, "Waking", 2)
    turned = set_condition(same, kind, True, Reason.REPLICAS_READY, "1 of 1", generation=2, now=LATER)
    assert turned[0].last_transition_time == LATER


def test_each_type_stands_once_and_keeps_its_place() -> None:
    both = set_condition((), "Ready", True, "ReplicasReady", "", generation=1, now=NOON)
    both = set_condition(both, "Degraded", False, "AsExpected", "", generation=1, now=NOON)
    both = set_condition(both, "Ready", "Unknown", "RayUnreachable", "", generation=1, now=LATER)
    assert [(each.type, each.status) for each in both] == [("Ready", "Unknown"), ("Degraded", "False")]


def test_every_reason_says_what_it_asks_for() -> None:
    assert set(MEANINGS) == set(Reason)


def test_a_status_is_written_as_kubernetes_reads_it_and_read_back() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=2))).replace(microsecond=5)
    status = ModelStatus(
        observed_generation=4,
        state=State.READY,
        ready_replicas=0,
        conditions=set_condition((), "Ready", True, Reason.REPLICAS_READY, "1 of 1", generation=4, now=elsewhere),
    )
    written = status.to_object()
    assert written == {
        "observedGeneration": 4,
        "state": "Ready",
        "readyReplicas": 0,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "ReplicasReady",
                "message": "1 of 1",
                "observedGeneration": 4,
                "lastTransitionTime": "2026-11-23T12:00:00Z",
            }
        ],
    }
    read = ModelStatus.model_validate(written)
    assert read.condition("Ready") is not None
    assert read.condition("Degraded") is None
    assert read.to_object() == written
