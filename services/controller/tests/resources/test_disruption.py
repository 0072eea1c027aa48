"""How many of a Model's pods may be evicted at once, over its life."""

from __future__ import annotations

from typing import Any

import pytest
from cloudach_controller.resources.disruption import budget, budget_name, pods_per_replica
from cloudach_model_api.model import Model

HUB = {"huggingFace": {"repo": "o/m"}}


def model(**spec: Any) -> Model:
    metadata = {"name": "m", "namespace": "llm", "uid": "u"}
    return Model.from_object({"metadata": metadata, "spec": {"source": HUB, **spec}})


def pod(*, ready: bool = True, going: bool = False, kind: str = "worker") -> dict[str, Any]:
    metadata = {"name": "p", "labels": {"ray.io/node-type": kind, "cloudach.dev/model": "m"}}
    if going:
        metadata["deletionTimestamp"] = "2026-11-01T12:00:00Z"
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}


def may_go(desired: int, ready: int, pods: list[dict[str, Any]], of: Model | None = None) -> int | None:
    """How many evictions Kubernetes grants at this moment; None: as many as one likes."""
    made = budget(of or model(), desired=desired, ready=ready, pods=pods)
    if made is None:
        return None
    healthy = [p for p in pods if p["metadata"]["labels"]["ray.io/node-type"] == "worker"]
    healthy = [p for p in healthy if "deletionTimestamp" not in p["metadata"]]
    healthy = [p for p in healthy if p["status"]["conditions"][0]["status"] == "True"]
    return max(len(healthy) - int(made["spec"]["minAvailable"]), 0)


def test_what_kubernetes_is_told() -> None:
    made = budget(model(), desired=3, ready=3, pods=[pod(), pod(), pod()])
    assert made is not None
    assert made["metadata"]["name"] == budget_name(model()) == "m.replicas"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert made["spec"] == {
        "minAvailable": 2,
        "selector": {"matchLabels": {"cloudach.dev/model": "m", "ray.io/node-type": "worker"}},
    }


def test_after_a_switch_the_old_pods_are_kept_until_the_new_ones_can_be_reached() -> None:
    pods = [pod(), pod(), pod(ready=False), pod(ready=False)]
    assert budget(model(), desired=2, ready=0, running=0, pods=pods) is None
    made = budget(model(), desired=2, ready=0, running=2, pods=pods)
    assert made is not None
    assert made["spec"]["minAvailable"] == 2, "none of them may go"


@pytest.mark.parametrize(
    ("desired", "ready", "pods", "granted"),
    [
        pytest.param(2, 2, [pod(), pod()], 1, id="all answer"),
        pytest.param(3, 3, [pod(), pod(), pod()], 1, id="one at a time, however many"),
        pytest.param(2, 1, [pod(), pod(going=True)], 0, id="one was evicted"),
        pytest.param(2, 1, [pod(), pod(), pod(going=True)], 0, id="the one for it is up, and loads weights"),
        pytest.param(2, 2, [pod(), pod(), pod(going=True)], 1, id="it answers, and the old one runs out"),
        pytest.param(2, 2, [pod()] * 4, 1, id="pods that nobody needs"),
        pytest.param(2, 2, [pod(), pod(), pod(ready=False), pod(ready=False)], 1, id="a second cluster starts"),
        pytest.param(2, 2, [pod()] * 4, 1, id="it has taken over"),
        pytest.param(2, 2, [pod(), pod(ready=False)], 0, id="one of them is out of the Service"),
        pytest.param(4, 2, [pod(), pod()], 0, id="more are wanted"),
        pytest.param(2, 4, [pod()] * 4, 1, id="fewer are wanted"),
        pytest.param(2, 2, [pod(), pod(), pod(kind="head")], 1, id="the head is none of them"),
        pytest.param(1, 1, [pod()], None, id="a single one"),
        pytest.param(1, 3, [pod()] * 3, None, id="down to a single one"),
        pytest.param(0, 2, [pod(), pod()], None, id="to zero, asleep or deleted"),
        pytest.param(2, 0, [pod(ready=False)] * 2, None, id="none answers, so no drain is held up"),
    ],
)
def test_evictions(desired: int, ready: int, pods: list[dict[str, Any]], granted: int | None) -> None:
    assert may_go(desired, ready, pods) == granted


def test_a_replica_of_several_pods_is_lost_with_any_of_them() -> None:
    of = model(gpu={"pipelineParallel": 2, "perPod": 1})
    assert pods_per_replica(of) == 2
    assert may_go(2, 2, [pod()] * 4, of) == 1
    assert may_go(2, 1, [pod()] * 3, of) == 0
    assert pods_per_replica(model()) == pods_per_replica(model(gpu={"perReplica": 0})) == 1
