"""What is written on RayServices: once where that is enough, ever more rarely where somebody writes against it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from cloudach_controller.act.ray_services import RayServices
from cloudach_controller.decide.plan import Plan
from cloudach_kube.errors import Refused
from cloudach_kube.kinds import Kind

KEY = ("llm", "qwen")
CLUSTER = {"headGroupSpec": {"template": {"spec": {"containers": [{"name": "ray-head"}]}}}}


class Writes:
    """Takes what is written. `webhook`: adds a field to every pod. `refuses`: the status may not be written."""

    def __init__(self, *, webhook: bool = False, refuses: bool = False) -> None:
        self.webhook, self.refuses = webhook, refuses
        self.done: list[str] = []

    async def apply(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.done.append("apply")
        return there(hands=True)

    async def patch(
        self, kind: Kind, namespace: str, name: str, operations: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        self.done.append(f"remove {operations[-1]['path']}")
        return there(hands=self.webhook)

    async def merge(
        self, kind: Kind, namespace: str, name: str, body: Mapping[str, Any], *, sub: str = ""
    ) -> dict[str, Any]:
        self.done.append(f"{sub} of version {body['metadata']['resourceVersion']}: {body['status']}")
        if self.refuses:
            raise Refused(403, "rayservices/status is forbidden")
        return there()


def there(*, hands: bool = False, pending: str = "qwen-b") -> dict[str, Any]:
    cluster = copy.deepcopy(CLUSTER)
    if hands:
        cluster["headGroupSpec"]["template"]["spec"]["hostNetwork"] = True  # type: ignore[assignment]
    return {
        "metadata": {"name": "qwen", "resourceVersion": "7"},
        "spec": {"rayClusterConfig": cluster},
        "status": {"pendingServiceStatus": {"rayClusterName": pending}},
    }


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_field_is_taken_out_in_the_version_that_was_seen() -> None:
    api = Writes()
    services = RayServices(api, Clock())
    found = await services.carry_out(KEY, there(hands=True), Plan("in place", None, cluster=CLUSTER))
    assert found == there()
    assert api.done == ["remove /spec/rayClusterConfig/headGroupSpec/template/spec/hostNetwork"]
    assert services.around(KEY, ()).tolerated == ""


async def test_what_a_webhook_adds_each_time_is_put_up_with_until_it_adds_something_else() -> None:
    services = RayServices(Writes(webhook=True), Clock())
    await services.carry_out(KEY, there(hands=True), Plan("in place", None, cluster=CLUSTER))
    assert services.around(KEY, ()).tolerated == '[[["headGroupSpec", "template", "spec", "hostNetwork"], true]]'


async def test_who_writes_the_same_again_and_again_is_answered_ever_more_rarely() -> None:
    clock, api = Clock(), Writes()
    services = RayServices(api, clock)
    done = Plan("in place", {"spec": 1})
    at = []
    for second in range(160):
        clock.now = float(second)
        if not services.waits(KEY, done):
            await services.carry_out(KEY, there(), done)
            at.append(second)
        if second == 2:
            assert not services.contested(KEY)
    assert at == [0, 1, 2, 5, 12, 27, 57, 87, 117, 147]
    assert services.contested(KEY)
    # What is really new does not wait for it, and after a calm time the first change counts as the first.
    assert not services.waits(KEY, Plan("in place", {"spec": 2}))
    clock.now += 66
    assert not services.contested(KEY)
    await services.carry_out(KEY, there(), done)
    assert not services.waits(KEY, done)


async def test_a_cluster_is_given_up_in_the_version_that_was_seen_and_only_if_it_is_that_one() -> None:
    api = Writes()
    services = RayServices(api, Clock())
    done = Plan("back", None, drop="qwen-b")
    await services.carry_out(KEY, there(), done)
    assert api.done == ["status of version 7: {'pendingServiceStatus': None}"]
    await services.carry_out(KEY, there(pending="qwen-c"), done)
    assert len(api.done) == 1
    assert not services.waits(KEY, done), "nobody writes against it"


async def test_without_the_right_it_is_tried_again_after_a_while() -> None:
    clock = Clock()
    services = RayServices(Writes(refuses=True), clock)
    assert services.around(KEY, ()).can_drop
    found = await services.carry_out(KEY, there(), Plan("back", None, drop="qwen-b"))
    assert found == there()
    assert not services.around(KEY, ()).can_drop
    assert services.around(("other", "qwen"), ()).can_drop
    clock.now = 301
    assert services.around(KEY, ()).can_drop


def test_clusters_with_pods_that_stay() -> None:
    def pod(cluster: str, **more: Any) -> dict[str, Any]:
        labels = {"ray.io/cluster": cluster} | more.pop("labels", {})
        return {"metadata": {"name": "p", "labels": labels, **more}}

    pods = [
        pod("a"),
        pod("b", deletionTimestamp="2026-11-01T12:00:00Z"),
        pod("c", labels={"ray.io/node-type": "redis-cleanup"}),
        {"metadata": {"name": "p"}},
    ]
    assert RayServices(Writes()).around(KEY, pods).with_pods == {"a"}
