"""What an operator reads in a Model's status, from what was seen."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cloudach_controller.decide.causes import cause
from cloudach_controller.decide.engine_log import last_error
from cloudach_controller.decide.observation import Observation, Replicas, read_replicas
from cloudach_controller.decide.plan import Plan
from cloudach_controller.decide.replicas import demand
from cloudach_controller.decide.status import invalid, status
from cloudach_controller.settings import Settings
from cloudach_model_api.model import InvalidModel, Model
from cloudach_model_api.status import ModelStatus

from .observed import DELETED, NOTHING, NOW, RAY_SERVICE, WAS_READY, container, model, pod, replicas, seen, told

UNSCHEDULABLE = pod(
    conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: 3 Insufficient nvidia.com/gpu."}]
)
HEADLESS = {
    **UNSCHEDULABLE,
    "metadata": {"name": "qwen-head", "labels": {"ray.io/cluster": "qwen-1", "ray.io/node-type": "head"}},
}
REPLACING = {
    "metadata": {"name": "qwen"},
    "status": {"activeServiceStatus": {"rayClusterName": "a"}, "pendingServiceStatus": {"rayClusterName": "b"}},
}
CASES: dict[str, tuple[Model, Observation, str, str, str, str]] = {
    "nothing yet": (
        model(), seen(), "Pending", "False NoReplicaReady", "True Deploying", "False AsExpected",
    ),
    "loading": (
        model(), seen(replicas(0, 2), (pod(),)), "Deploying", "False NoReplicaReady", "True Deploying",
        "False AsExpected",
    ),
    "all answer": (model(), seen(replicas(2)), "Ready", "True ReplicasReady", "False UpToDate", "False AsExpected"),
    "the first answers": (
        model(), seen(replicas(1, 1)), "Scaling", "True ReplicasReady", "True Scaling", "False AsExpected",
    ),
    "more wanted": (
        model({"replicas": 3}, WAS_READY), seen(replicas(2)), "Scaling", "True ReplicasReady", "True Scaling",
        "False AsExpected",
    ),
    "one lost": (
        model(old=WAS_READY), seen(replicas(1, 1)), "Degraded", "True ReplicasReady", "True Scaling",
        "True FewerReplicas",
    ),
    "one drains": (
        model({"replicas": 1}, WAS_READY), seen(replicas(1, 0, 1)), "Scaling", "True ReplicasReady", "True Draining",
        "False AsExpected",
    ),
    "rolling": (
        model(old=WAS_READY), seen(replicas(2, 1, deployment="UPDATING")), "Scaling", "True ReplicasReady",
        "True Deploying", "False AsExpected",
    ),
    "no node": (
        model(), seen(pods=(UNSCHEDULABLE,)), "Pending", "False NoReplicaReady", "True Deploying", "True NoGpuNodeFits",
    ),
    "no node for one more": (
        model({"replicas": 3}), seen(replicas(2, 1), (UNSCHEDULABLE,)), "Degraded", "True ReplicasReady",
        "True Scaling", "True NoGpuNodeFits",
    ),
    "no node for one too many": (
        model(old=WAS_READY), seen(replicas(2), (UNSCHEDULABLE,)), "Ready", "True ReplicasReady", "False UpToDate",
        "False AsExpected",
    ),
    "no node for one that takes over": (
        model(old=WAS_READY), seen(replicas(2, deployment="UPDATING"), (UNSCHEDULABLE,)), "Degraded",
        "True ReplicasReady", "True Deploying", "True NoGpuNodeFits",
    ),
    "no node for the second cluster": (
        model(old=WAS_READY), seen(replicas(2), (UNSCHEDULABLE,), ray_service=REPLACING), "Degraded",
        "True ReplicasReady", "True Replacing", "True NoGpuNodeFits",
    ),
    "no node for the head, GPUs held": (
        model(), seen(pods=(UNSCHEDULABLE, pod(), HEADLESS)), "Pending", "False NoReplicaReady", "True Deploying",
        "True NoHeadNodeFits",
    ),
    "no node for the head of one that answers": (
        model(old=WAS_READY), seen(replicas(2), (pod(), HEADLESS)), "Degraded", "True ReplicasReady",
        "False UpToDate", "True NoHeadNodeFits",
    ),
    "switched off": (
        model({"replicas": 0}), seen(replicas(0)), "Off", "False ScaledToZero", "False UpToDate",
        "False AsExpected",
    ),
    "going off": (
        model({"replicas": 0}), seen(replicas(0, 0, 2)), "Scaling", "False ScaledToZero", "True Draining",
        "False AsExpected",
    ),
    "deleting": (
        model(**DELETED), seen(replicas(0, 0, 2)), "Deleting", "False Deleting", "True Draining", "False AsExpected",
    ),
    "no KubeRay": (
        model(), seen(ray_service=None, kuberay_missing=True), "Failed", "False NoReplicaReady", "False NotTaken",
        "True KubeRayMissing",
    ),
    "deleted by hand": (
        model(), seen(vanished=True), "Pending", "False NoReplicaReady", "True Deploying", "True RayServiceMissing",
    ),
    "dashboard away": (
        model(old=WAS_READY), seen(unreachable="no answer"), "Degraded", "True ReplicasReady", "False UpToDate",
        "True RayUnreachable",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("of", "what", "state", "ready", "progressing", "degraded"), CASES.values(), ids=CASES)
def test_status(of: Model, what: Observation, state: str, ready: str, progressing: str, degraded: str) -> None:
    found, conditions, _ = told(of, what)
    assert (found, conditions) == (state, {"Ready": ready, "Progressing": progressing, "Degraded": degraded})


def test_while_serve_reads_a_new_configuration_the_replicas_run_on() -> None:
    """It tells of none until it has read it, which takes half a minute with vLLM."""
    answer = {"applications": {"model": {"status": "DEPLOYING", "deployments": {}}}}
    building = read_replicas(answer, "LLMServer:qwen")
    assert (building.building, building.total) == (True, 0)
    state, conditions, found = told(model(old=WAS_READY), seen(building))
    assert (state, found.ready_replicas) == ("Ready", 2)
    assert (conditions["Ready"], conditions["Progressing"]) == ("True ReplicasReady", "True Deploying")
    assert told(model(), seen(building))[2].ready_replicas == 0


def test_a_waking_model_says_so() -> None:
    zero = {"autoscaling": {"minReplicas": 0, "maxReplicas": 2}}
    marks = {"cloudach.dev/wake-requested-at": NOW.isoformat()}
    of = model(zero, {"state": "Sleeping"}, annotations=marks, creationTimestamp=(NOW - timedelta(days=1)).isoformat())
    assert told(of, seen(replicas(0, 1)))[1]["Progressing"] == "True Waking"


def test_a_replacement_is_announced_with_its_cost() -> None:
    found = told(model(old=WAS_READY), seen(replicas(2)), Plan("none", None, "takes 2 nvidia.com/gpu more"))[2]
    condition = found.condition("Progressing")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "ReplacementPending")
    assert condition.message == "takes 2 nvidia.com/gpu more", "and not the same once more in other words"
    assert "2 nvidia.com/gpu more" in condition.message
    pending = {"activeServiceStatus": {"rayClusterName": "a"}, "pendingServiceStatus": {"rayClusterName": "b"}}
    assert told(model(), seen(replicas(2), ray_service={"status": pending}))[1]["Progressing"] == "True Replacing"


def test_the_rest_of_the_status() -> None:
    found = told(model(), seen(replicas(1, 1, 1)))[2]
    assert (found.replicas, found.ready_replicas, found.desired_replicas) == (3, 1, 2)
    assert found.endpoint == "http://qwen-serve-svc.llm.svc:8000"
    assert (found.id, found.upstream_model, found.observed_generation) == ("qwen", "qwen", 4)
    assert found.selector == "cloudach.dev/model=qwen,ray.io/node-type=worker,ray.io/cluster=qwen-1"


def test_an_autoscaled_model_tells_what_the_autoscaler_wants() -> None:
    of = model({"autoscaling": {"maxReplicas": 8}})
    assert told(of, seen(replicas(3, 2, target=5)))[2].desired_replicas == 5


def test_an_unchanged_condition_keeps_its_time() -> None:
    first = told(model(), seen(replicas(2)))[2]
    again = model(old=first.to_object())
    found = status(again, demand(again, NOW), NOTHING, seen(replicas(2)), Settings(), now=NOW + timedelta(hours=1))
    assert found == first


def failed(message: str) -> Replicas:
    return replicas(0, app="DEPLOY_FAILED", message=message)


CAUSES: dict[str, tuple[Observation, str, str]] = {
    "gated": (
        seen(failed("(x pid=3) hub.GatedRepoError: 401 Client Error. Access to model m is restricted")),
        "WeightsGated", "Access to model m is restricted",
    ),
    "not found": (
        seen(failed("OSError: no/such is not a local folder and is not a valid model identifier")), "WeightsNotFound",
        "no/such",
    ),
    "GPU memory": (
        seen(failed("Traceback\n  x\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")),
        "OutOfMemory", "Tried to allocate 2 GiB",
    ),
    "KV cache": (
        seen(failed("ValueError: the model's max seq len (9) is larger than the maximum number of tokens in KV cache")),
        "OutOfMemory", "max seq len",
    ),
    "crash": (
        seen(failed("Traceback\nValueError: unknown quantization\nRuntimeError: failed. See root cause above")),
        "EngineCrashed", "ValueError: unknown quantization",
    ),
    "crash told by KubeRay": (
        seen(ray_service={"status": {"pendingServiceStatus": {"applicationStatuses": {"model": {
            "status": "DEPLOY_FAILED", "message": "KeyError: 'x'"}}}}}), "EngineCrashed", "KeyError: 'x'",
    ),
    "image": (
        seen(pods=(container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),)),
        "ImagePullFailed", "no such image",
    ),
    "secret": (
        seen(pods=(container(state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hf"'}}),)),
        "SecretMissing", 'secret "hf"',
    ),
    "volume": (
        seen(pods=(pod(conditions=[{"type": "PodScheduled", "status": "False",
                                    "message": 'persistentvolumeclaim "w" not found'}]),)), "VolumeMissing", '"w"',
    ),
    "pod memory": (
        seen(pods=(container(state={}, lastState={"terminated": {"reason": "OOMKilled"}}),)), "OutOfMemory", "qwen-abc",
    ),
    "crash loop": (
        seen(pods=(container(state={"waiting": {"reason": "CrashLoopBackOff"}},
                             lastState={"terminated": {"message": "ImportError: no cuda"}}),)),
        "EngineCrashed", "ImportError: no cuda",
    ),
    "quota": (
        seen(ray_service={"status": {"activeServiceStatus": {"rayClusterStatus": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "pods x is forbidden: exceeded quota: gpus"}]}}}}),
        "QuotaExceeded", "exceeded quota: gpus",
    ),
    "refused": (seen(refused="spec.x: Invalid value"), "RayServiceFailed", "spec.x"),
}  # fmt: skip


@pytest.mark.parametrize(("what", "reason", "words"), CAUSES.values(), ids=CAUSES)
def test_causes(what: Observation, reason: str, words: str) -> None:
    found = cause(what)
    assert found is not None
    assert found.reason == reason
    assert words in found.message


def test_nothing_wrong() -> None:
    assert cause(seen(replicas(2), (container(state={"running": {}}),))) is None


def test_last_error_without_an_exception_is_the_last_line() -> None:
    assert last_error("a\n\nsegfault\n") == "segfault"


def test_read_replicas() -> None:
    states = ["RUNNING", "STARTING", "STOPPING", "RUNNING", "UPDATING"]
    deployment = {"status": "UPSCALING", "target_num_replicas": 4, "replicas": [{"state": one} for one in states]}
    answer = {"applications": {"model": {"status": "RUNNING", "deployments": {"LLMServer:qwen": deployment}}}}
    none: frozenset[str] = frozenset()
    assert read_replicas(answer, "LLMServer:qwen") == Replicas(4, 2, 2, 1, "RUNNING", "UPSCALING", "", none)
    args = {"lora": {"adapters": [{"name": "a", "folder": "/x"}], "max_loaded": 1}}
    answer["applications"]["model"]["deployed_app_config"] = {"args": args}
    assert read_replicas(answer, "LLMServer:qwen").adapters == {"a"}
    assert read_replicas({}, "LLMServer:qwen").total == 0


def test_a_bad_spec_leaves_what_runs_as_it_is() -> None:
    with pytest.raises(InvalidModel) as broken:
        model({"replicas": -1})
    old = ModelStatus.model_validate({**WAS_READY, "observedGeneration": 8})
    found = invalid(old, broken.value, generation=9, now=NOW)
    condition = found.condition("Degraded")
    assert condition is not None
    assert (condition.reason, "spec.replicas" in condition.message) == ("InvalidSpec", True)
    assert (found.ready_replicas, found.state, condition.observed_generation) == (2, "Degraded", 9)
    progressing = found.condition("Progressing")
    assert progressing is not None
    assert (progressing.reason, found.observed_generation) == ("NotTaken", 8), "it speaks of what is in force"
    assert invalid(ModelStatus(), broken.value, generation=9, now=NOW).state == "Failed"


@pytest.mark.parametrize(("active", "state"), [("", "Failed"), ("qwen-1", "Deploying")])
def test_what_keeps_a_second_cluster_from_coming_is_not_the_end_of_the_first(active: str, state: str) -> None:
    """Its lost replica comes again, so requests wait for it."""
    pulling = container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}})
    pulling["metadata"]["labels"] = {"ray.io/cluster": "qwen-2"}
    coming = pod()
    coming["metadata"]["labels"] = {"ray.io/cluster": "qwen-1"}
    parts = {"activeServiceStatus": {"rayClusterName": active}, "pendingServiceStatus": {"rayClusterName": "qwen-2"}}
    what = seen(replicas(0, 2), (coming, pulling), ray_service={"metadata": {"name": "qwen"}, "status": parts})
    found, conditions, _ = told(model(), what)
    assert conditions["Degraded"] == "True ImagePullFailed"
    assert found == state


def test_a_failed_roll_out_is_not_up_to_date() -> None:
    """Seen with arguments that the engine refuses: the replicas from before answer, all of them."""
    broken = replicas(2, app="DEPLOY_FAILED", deployment="DEPLOY_FAILED", message="ValueError: bad")
    state, conditions, found = told(model(old=WAS_READY), seen(broken))
    assert (state, conditions["Ready"]) == ("Degraded", "True ReplicasReady")
    assert (conditions["Progressing"], conditions["Degraded"]) == ("False RolloutFailed", "True EngineCrashed")
    assert found.ready_replicas == 2


@pytest.mark.parametrize("what", [{"refused": "no"}, {"kuberay_missing": True}])
def test_a_spec_that_was_not_taken_is_not_observed(what: dict[str, Any]) -> None:
    _, conditions, found = told(model(old={**WAS_READY, "observedGeneration": 3}), seen(replicas(2), **what))
    assert conditions["Progressing"] == "False NotTaken"
    assert found.observed_generation == 3
    assert {one.observed_generation for one in found.conditions} == {4}


def told_at(minutes: float, before: ModelStatus, view: Replicas, *, generation: int = 4, **more: Any) -> ModelStatus:
    of = model(old=before.to_object(), generation=generation)
    now = NOW + timedelta(minutes=minutes)
    return status(of, demand(of, now), NOTHING, seen(view, (pod(),), **more), Settings(), now=now)


def reason(of: ModelStatus, kind: str) -> str:
    found = of.condition(kind)
    assert found is not None
    return f"{found.status} {found.reason}"


def test_a_model_that_makes_no_step_for_so_long_says_so_and_since_when() -> None:
    starts = told_at(0, ModelStatus(), replicas(0, 2))
    assert reason(starts, "Degraded") == "False AsExpected"
    one = told_at(20, starts, replicas(1, 1))  # a step
    in_time = told_at(50, one, replicas(1, 1))
    assert reason(in_time, "Degraded") == "False AsExpected"
    late = told_at(51, in_time, replicas(1, 1))
    assert reason(late, "Degraded") == "True ProgressDeadlineExceeded"
    assert late.state == "Scaling"
    for kind in ("Degraded", "Progressing"):
        found = late.condition(kind)
        assert found is not None
        assert "No step since 2026-11-01T12:20:00Z" in found.message
    assert told_at(60, late, replicas(1, 1)).conditions == late.conditions, "told once"
    # The next step, another generation and the end each end it.
    assert reason(told_at(61, late, replicas(0, 2)), "Degraded") == "False AsExpected"
    assert reason(told_at(61, late, replicas(1, 1), generation=5), "Degraded") == "False AsExpected"
    ready = told_at(61, late, replicas(2))
    assert reason(ready, "Degraded") == "False AsExpected"
    assert ready.progressed_at is None


def test_what_is_known_to_be_wrong_is_told_and_the_deadline_with_it() -> None:
    starts = told_at(0, ModelStatus(), replicas(0))
    lost = {"ray_service": RAY_SERVICE}
    of = model(old=starts.to_object())
    now = NOW + timedelta(minutes=31)
    late = status(
        of,
        demand(of, now),
        NOTHING,
        Observation(lost["ray_service"], (UNSCHEDULABLE,), replicas(0)),
        Settings(),
        now=now,
    )
    assert reason(late, "Degraded") == "True NoGpuNodeFits"
    progressing = late.condition("Progressing")
    assert progressing is not None
    assert "No step since" in progressing.message


def test_replicas_that_go_one_by_one_make_steps() -> None:
    def gone(minutes: float, before: ModelStatus, left: int) -> ModelStatus:
        of = model({"replicas": 0}, old=before.to_object())
        now = NOW + timedelta(minutes=minutes)
        return status(of, demand(of, now), NOTHING, seen(replicas(0, leaving=left)), Settings(), now=now)

    two = gone(0, ModelStatus(), 2)
    one = gone(25, two, 1)
    assert reason(gone(40, one, 1), "Degraded") == "False AsExpected"
    assert reason(gone(56, one, 1), "Degraded") == "True ProgressDeadlineExceeded"


def test_a_change_that_waits_for_a_word_is_not_on_its_way() -> None:
    waits = Plan("none", None, "To allow it: kubectl")
    before = told(model(), seen(replicas(2)), waits)[2]
    assert before.progressed_at is None


def test_somebody_who_changes_the_ray_service_again_and_again_is_told_of() -> None:
    assert told(model(old=WAS_READY), seen(replicas(2), contested=True))[1]["Degraded"] == "True FieldsContested"
