"""What KubeRay makes of a RayService: which replicas can be reached, and whether it follows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudach_controller.decide.kuberay import behind, reachable
from cloudach_controller.decide.observation import Observation
from cloudach_controller.decide.plan import Plan
from cloudach_controller.decide.replicas import demand
from cloudach_controller.decide.status import status
from cloudach_controller.settings import Settings
from cloudach_model_api.model import Model
from cloudach_model_api.status import rfc3339

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
COUNTS = {"conditions": [{"type": "Ready", "status": "False", "reason": "ZeroServeEndpoints"}]}


def ago(seconds: float) -> str:
    return rfc3339(NOW - timedelta(seconds=seconds))


def pod(cluster: str, *, ready: bool, head: bool = False, since_s: float = 0, **meta: Any) -> dict[str, Any]:
    labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head" if head else "worker"}
    labels["ray.io/serve"] = str(not head).lower()
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": ago(since_s)}
    return {"metadata": {"name": "p", "labels": labels, **meta}, "status": {"conditions": [condition]}}


def seen(told: dict[str, Any], *pods: dict[str, Any], **meta: Any) -> Observation:
    return Observation({"metadata": {"name": "m", **meta}, "status": told}, pods, None)


ACTIVE: dict[str, Any] = {"activeServiceStatus": {"rayClusterName": "m-1", "applicationStatuses": {"model": {}}}}
REACHED: dict[str, tuple[Observation, bool]] = {
    "a worker is ready": (seen({**ACTIVE, **COUNTS}, pod("m-1", ready=True)), True),
    "none is ready yet": (seen({**ACTIVE, **COUNTS}, pod("m-1", ready=False)), False),
    "one of two is": (seen(ACTIVE, pod("m-1", ready=False), pod("m-1", ready=True)), True),
    "the head is, which leads nowhere": (seen({**ACTIVE, **COUNTS}, pod("m-1", ready=True, head=True)), False),
    "one that is ending": (seen(ACTIVE, pod("m-1", ready=True, deletionTimestamp=ago(1))), False),
    # Right after a switch KubeRay still counts the endpoints of the cluster before it.
    "one of the next cluster": (
        seen({**ACTIVE, "numServeEndpoints": 1}, pod("m-1", ready=False), pod("m-2", ready=True)),
        False,
    ),
    "no pod is seen, KubeRay counts one": (seen({**ACTIVE, **COUNTS, "numServeEndpoints": 1}), True),
    "no pod is seen, KubeRay counts none": (seen({**ACTIVE, **COUNTS}), False),
    "no pod is seen, and KubeRay does not count": (seen(ACTIVE), True),
}


@pytest.mark.parametrize("case", REACHED)
def test_what_can_be_reached(case: str) -> None:
    what, wanted = REACHED[case]
    assert reachable(what) is wanted


def applied(seconds: float) -> list[dict[str, Any]]:
    """KubeRay's own writes, as of its status, say nothing of when it was given something."""
    other = {"manager": "kuberay-operator", "time": ago(1)}
    return [{"manager": "cloudach-controller", "time": ago(seconds)}, other, {"manager": "cloudach-controller"}]


PENDING: dict[str, Any] = {"pendingServiceStatus": {"rayClusterName": "m-1"}}
BEHIND: dict[str, tuple[Observation, str]] = {
    "not looked at": (seen({}, creationTimestamp=ago(70)), "no cluster of the RayService, since 2026-11-01T11:58:50Z."),
    "an older generation": (
        seen({**ACTIVE, **COUNTS, "observedGeneration": 7}, generation=9, managedFields=applied(65)),
        "KubeRay has read generation 7 of the RayService, but it is at generation 9, since 2026-11-01T11:58:55Z.",
    ),
    "the head is ready, and nothing comes": (
        seen(PENDING, pod("m-1", ready=True, head=True, since_s=61)),
        "reports nothing about Serve there, since",
    ),
    "its finalizer stays": (
        seen({**ACTIVE, **COUNTS}, creationTimestamp=ago(900), deletionTimestamp=ago(65)),
        "KubeRay still holds the RayService, which is being deleted, since 2026-11-01T11:58:55Z.",
    ),
}
FOLLOWS: dict[str, Observation] = {
    "as it should be": seen({**ACTIVE, **COUNTS, "observedGeneration": 9}, generation=9),
    "an old KubeRay": seen({**ACTIVE, "observedGeneration": 1}, generation=9),
    "no cluster is active": seen({**PENDING, **COUNTS, "observedGeneration": 1}, generation=2),
    "the head is not ready": seen(PENDING, pod("m-1", ready=False, head=True)),
    "the second cluster's head is not ready": seen(
        {**PENDING, "activeServiceStatus": {"rayClusterName": "m-0"}}, pod("m-0", ready=True, head=True, since_s=900)
    ),
    "no RayService": Observation(None, (), None),
}  # fmt: skip


@pytest.mark.parametrize("case", BEHIND)
def test_kuberay_that_does_not_follow(case: str) -> None:
    what, words = BEHIND[case]
    found = behind(what)
    assert found is not None
    assert words in str(found)
    assert found.is_late(NOW, 60)
    assert not found.is_late(NOW, 71)


@pytest.mark.parametrize("case", FOLLOWS)
def test_kuberay_that_follows(case: str) -> None:
    assert behind(FOLLOWS[case]) is None


@pytest.mark.parametrize(("seconds", "degraded"), [(5, "AsExpected"), (65, "KubeRayBehind")])
def test_it_is_told_at_once_that_it_is_not_up_to_date_and_later_that_somebody_should_look(
    seconds: float, degraded: str
) -> None:
    spec = {"source": {"simulator": {}}, "replicas": 0}
    model = Model.from_object({"metadata": {"name": "m", "namespace": "n", "generation": 4}, "spec": spec})
    what = seen({**ACTIVE, **COUNTS, "observedGeneration": 7}, generation=8, managedFields=applied(seconds))
    found = status(model, demand(model, NOW), Plan("none", None), what, Settings(), now=NOW)
    reasons = {one.type: one.reason for one in found.conditions}
    assert (reasons["Progressing"], reasons["Degraded"]) == ("KubeRayBehind", degraded)
    if degraded == "KubeRayBehind":
        condition = found.condition("Degraded")
        assert condition is not None
        assert "networkPolicy.kuberayFrom" in condition.message
