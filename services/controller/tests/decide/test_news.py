"""Which events a Model gets, and how they are written and counted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from cloudach_controller.act.events import Events
from cloudach_controller.decide.news import News, of_change, of_status
from cloudach_kube.client import KubeClient
from cloudach_kube.errors import Conflict, NotFound, Unreachable
from cloudach_kube.kinds import Kind
from cloudach_model_api.status import ModelStatus, set_condition

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
MODEL = {"metadata": {"name": "qwen", "namespace": "llm", "uid": "u1"}}


def told(*steps: str) -> list[str]:
    """Each step is a condition as `Ready True ReplicasReady`; the events of the last one."""
    status, events = ModelStatus(), []
    for step in steps:
        kind, holds, reason = step.split()
        conditions = set_condition(status.conditions, kind, holds == "True", reason, "words", generation=1, now=NOON)
        new = ModelStatus(conditions=conditions)
        events = [f"{one.kind} {one.reason}" for one in of_status(status, new)]
        status = new
    return events


@pytest.mark.parametrize(
    ("steps", "events"),
    [
        (["Ready False NoReplicaReady"], ["Normal NoReplicaReady"]),
        (["Ready True ReplicasReady", "Ready False NoReplicaReady"], ["Warning NoReplicaReady"]),
        (["Ready True ReplicasReady", "Ready False Sleeping"], ["Normal Sleeping"]),
        (["Ready True ReplicasReady", "Ready False ScaledToZero"], ["Normal ScaledToZero"]),
        (["Ready True ReplicasReady", "Ready False Deleting"], ["Normal Deleting"]),
        (["Ready True ReplicasReady", "Ready True ReplicasReady"], []),
        (["Degraded False AsExpected"], []),
        (["Degraded True OutOfMemory"], ["Warning OutOfMemory"]),
        (["Degraded True OutOfMemory", "Degraded False AsExpected"], ["Normal AsExpected"]),
        (["Degraded False NameWanted", "Degraded False AsExpected"], []),
    ],
)
def test_what_an_operator_is_told(steps: list[str], events: list[str]) -> None:
    assert told(*steps) == events


def test_a_ray_service_that_is_made_or_replaced_is_told_of() -> None:
    assert [one.reason for one in of_change("create", "qwen")] == ["RayServiceCreated"]
    assert [one.reason for one in of_change("replacement", "qwen")] == ["ReplacementBegun"]
    assert list(of_change("in place", "qwen")) == list[News]()


class Server:
    """An API server that holds events. Names are taken once, as there."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.away = False

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.away:
            raise Unreachable(0, "away")
        name = body["metadata"]["name"]
        if name in self.events:
            raise Conflict(409, name)
        self.events[name] = body
        return body

    async def merge(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name not in self.events:
            raise NotFound(404, name)
        self.events[name] |= body
        return body

    def counts(self) -> list[int]:
        return [event["count"] for event in self.events.values()]


def events_of(server: Server, instance: str) -> Events:
    return Events(cast(KubeClient, server), instance=instance)


async def test_the_same_event_again_raises_its_count() -> None:
    server = Server()
    events = events_of(server, "one")
    for _ in range(3):
        await events.tell(MODEL, "Warning", "OutOfMemory", "words")
    await events.tell(MODEL, "Warning", "OutOfMemory", "other words")
    assert server.counts() == [3, 1]


async def test_no_event_is_lost_or_miscounted_after_a_restart() -> None:
    server = Server()
    await events_of(server, "one").tell(MODEL, "Warning", "OutOfMemory", "words")
    second = events_of(server, "two")
    for _ in range(2):
        await second.tell(MODEL, "Warning", "OutOfMemory", "words")
    assert server.counts() == [1, 2]
    assert [event["source"]["host"] for event in server.events.values()] == ["one", "two"]


async def test_an_event_that_ran_out_begins_anew() -> None:
    server = Server()
    events = events_of(server, "one")
    for _ in range(2):
        await events.tell(MODEL, "Normal", "Sleeping", "words")
    server.events.clear()
    for _ in range(2):
        await events.tell(MODEL, "Normal", "Sleeping", "words")
    assert server.counts() == [2]


async def test_of_more_events_than_are_remembered_none_is_lost() -> None:
    server = Server()
    events = events_of(server, "one")
    for number in range(5000):
        await events.tell(MODEL, "Normal", "Sleeping", str(number))
    await events.tell(MODEL, "Normal", "Sleeping", "0")
    assert len(server.events) == 5001
    await events.tell(MODEL, "Normal", "Sleeping", "4999")
    assert max(server.counts()) == 2


async def test_one_that_cannot_be_written_is_written_the_next_time() -> None:
    server = Server()
    events = events_of(server, "one")
    server.away = True
    await events.tell(MODEL, "Normal", "Sleeping", "words")
    server.away = False
    await events.tell(MODEL, "Normal", "Sleeping", "words")
    assert server.counts() == [1]
