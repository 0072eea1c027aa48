"""Second clusters: what begins one, what takes one back, and what none is begun for. KubeRay's part is told by hand."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudach_controller.decide.plan import Plan, cleaning, plan
from cloudach_controller.decide.replicas import demand
from cloudach_controller.decide.rollout import Around
from cloudach_controller.settings import parse
from cloudach_model_api.model import Model

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
OLD, NEW, NEWER = ("registry.example.com/engine:1", "registry.example.com/engine:typo", "registry.example.com/engine:2")
A, B, C = "qwen-aaaaa", "qwen-bbbbb", "qwen-ccccc"
WORD = "cloudach.dev/allow-replacement"
GO = {"annotations": {WORD: "always"}}


def model(
    image: str, *, status: dict[str, Any] | None = None, meta: dict[str, Any] | None = None, **spec: Any
) -> Model:
    metadata = {"name": "qwen", "namespace": "llm", "uid": "u1", "generation": 1, **(meta or {})}
    source = {"huggingFace": {"repo": "Qwen/Qwen3-8B"}}
    wanted = {"source": source, "replicas": 1, "image": image, **spec}
    return Model.from_object({"metadata": metadata, "spec": wanted, "status": status or {}})


def planned(
    of: Model, there: dict[str, Any] | None, *, around: Around | None = None, settings: str = "", later_s: float = 0
) -> Plan:
    now = NOW + timedelta(seconds=later_s)
    return plan(of, demand(of, now), there, parse(settings), target=None, now=now, around=around)


def kuberay(
    applied: dict[str, Any] | None,
    *,
    active: str = "",
    pending: str = "",
    said: str = "",
    observed: bool = True,
) -> dict[str, Any]:
    """The RayService as applied, with KubeRay's status. `said`: of the second cluster's application."""
    assert applied is not None
    there = copy.deepcopy(applied)
    there["metadata"] |= {"generation": 2, "resourceVersion": "7"}
    part: dict[str, Any] = {"rayClusterName": pending} if pending else {}
    if said:
        part["applicationStatuses"] = {"model": {"status": said}}
    there["status"] = {
        "observedGeneration": 2 if observed else 1,
        "activeServiceStatus": {"rayClusterName": active} if active else {},
        "pendingServiceStatus": part,
    }
    return there


def serving(of: Model) -> dict[str, Any]:
    """Its RayService when the first cluster serves and all is told."""
    first = kuberay(planned(of, None).manifest, active=A)
    return kuberay(planned(of, first).manifest, active=A)


def replacing(old: Model, new: Model, *, said: str = "") -> dict[str, Any]:
    """A second cluster is on its way."""
    done = planned(new, serving(old))
    assert done.change == "replacement"
    return kuberay(done.manifest, active=A, pending=B, said=said)


def image(manifest: dict[str, Any] | None) -> str:
    assert manifest is not None
    found: str = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    return found


def app(manifest: dict[str, Any] | None) -> dict[str, Any]:
    assert manifest is not None
    found: dict[str, Any] = json.loads(manifest["spec"]["serveConfigV2"])["applications"][0]
    return found


def delay(manifest: dict[str, Any] | None) -> int:
    assert manifest is not None
    return int(manifest["spec"]["rayClusterDeletionDelaySeconds"])


def strategy(manifest: dict[str, Any] | None) -> str:
    assert manifest is not None
    return str(manifest["spec"]["upgradeStrategy"]["type"])


def settled(of: Model, done: Plan, **status: Any) -> Plan:
    """The plan after KubeRay has done its part."""
    return planned(of, kuberay(done.manifest, **status))


def test_a_typo_in_the_first_image_is_mended_without_a_word() -> None:
    """Nothing runs that could be doubled, and what could not start holds its GPUs no longer."""
    there = kuberay(planned(model(NEW), None).manifest, pending=A)
    done = planned(model(OLD), there)
    assert (done.change, done.waiting, image(done.manifest)) == ("anew", "", OLD)
    assert delay(done.manifest) == 0
    serves = planned(model(OLD), kuberay(done.manifest, active=B), later_s=60)
    assert (serves.change, delay(serves.manifest)) == ("in place", 960)


def test_a_failed_replacement_is_taken_back_without_a_word_and_without_a_third_cluster() -> None:
    old, new = model(OLD, engine={"args": {"seed": 1}}), model(NEW, engine={"args": {"seed": 2}}, meta=GO)
    there = replacing(old, new)
    assert image(there) == NEW
    back = model(OLD, engine={"args": {"seed": 1}})
    done = planned(back, there)
    assert (done.change, done.waiting, done.drop) == ("back", "", B)
    # KubeRay starts no cluster for the text of the first one, and does not keep the second.
    assert (image(done.manifest), strategy(done.manifest), delay(done.manifest)) == (OLD, "None", 0)
    assert app(done.manifest)["args"]["options"]["engine_kwargs"]["seed"] == 1
    # What KubeRay does not let happen at once is tried again, however long that takes.
    again = planned(back, kuberay(done.manifest, active=A, pending=B), later_s=60)
    assert (again.drop, delay(again.manifest)) == (B, 0)
    # Until it has gone the delay stays: KubeRay reads it when it sees that a cluster is not wanted.
    gone = planned(back, kuberay(done.manifest, active=A))
    assert (gone.change, strategy(gone.manifest), delay(gone.manifest)) == ("in place", "NewCluster", 0)
    last = kuberay(gone.manifest, active=A)
    pods = Around(with_pods=frozenset({A, B}))
    assert planned(back, last, around=pods, later_s=60).change == "none"
    over = planned(back, last, around=Around(with_pods=frozenset({A})), later_s=11)
    assert (over.change, delay(over.manifest)) == ("in place", 960)
    assert planned(back, kuberay(over.manifest, active=A), later_s=11).change == "none"


def test_what_kuberay_has_not_begun_yet_is_taken_back_too() -> None:
    done = planned(model(NEW, meta=GO), serving(model(OLD)))
    unseen = kuberay(done.manifest, active=A, observed=False)
    back = planned(model(OLD), unseen)
    assert (back.waiting, back.drop, image(back.manifest)) == ("", "", OLD)
    # KubeRay was faster: the first cluster is still known to be what the Model asks for.
    late = settled(model(OLD), back, active=A, pending=B)
    assert (late.drop, late.waiting) == (B, "")


def test_new_arguments_on_the_way_back_are_rolled_out_on_the_first_cluster() -> None:
    there = replacing(model(OLD), model(NEW, meta=GO))
    done = planned(model(OLD, maxModelLen=99), there)
    assert done.drop == B
    assert app(done.manifest)["args"]["options"]["engine_kwargs"]["max_model_len"] == 99


def test_a_second_cluster_that_is_ready_is_left_to_take_over() -> None:
    there = replacing(model(OLD), model(NEW, meta=GO), said="RUNNING")
    for wanted in (model(OLD), model(NEWER, meta=GO), model(NEW)):
        done = planned(wanted, there)
        assert (done.drop, image(done.manifest or there), delay(done.manifest or there)) == ("", NEW, 960)
    # Then the way back is a replacement as any other.
    after = kuberay(there, active=B)
    done = planned(model(OLD), after)
    assert done.waiting
    assert image(done.manifest or after) == NEW


def test_the_second_cluster_that_took_over_while_it_was_taken_back_is_known() -> None:
    """KubeRay was faster than the status that gives it up. It serves, so nothing replaces it unasked."""
    back = planned(model(OLD), replacing(model(OLD), model(NEW, meta=GO)))
    there = kuberay(back.manifest, active=B)
    done = planned(model(OLD), there)
    assert done.waiting
    assert (image(done.manifest), delay(done.manifest)) == (NEW, 960)
    assert planned(model(NEW), kuberay(done.manifest, active=B)).waiting == ""


def test_without_the_right_to_give_it_up_a_third_cluster_takes_the_seconds_place() -> None:
    """As before: KubeRay knows no other way. It takes no more GPUs than the second one."""
    helpless = Around(can_drop=False)
    done = planned(model(OLD), replacing(model(OLD), model(NEW, meta=GO)), around=helpless)
    assert (done.change, done.drop, done.waiting) == ("replacement", "", "")
    assert (image(done.manifest), strategy(done.manifest), delay(done.manifest)) == (OLD, "NewCluster", 0)
    coming = kuberay(done.manifest, active=A, pending=C)
    kept = planned(model(OLD), coming, around=helpless)
    assert (kept.change, image(kept.manifest)) == ("in place", OLD)  # its notes
    assert planned(model(OLD), coming).drop == C  # as soon as there is the right


def test_a_mended_typo_of_a_replacement_needs_no_second_word() -> None:
    first = planned(model(NEW), serving(model(OLD)))
    word = {"annotations": {WORD: first.waiting.rpartition("=")[2]}}
    there = replacing(model(OLD), model(NEW, meta=word))
    done = planned(model(NEWER, meta=word), there)
    assert (done.change, done.waiting, image(done.manifest)) == ("replacement", "", NEWER)
    assert delay(done.manifest) == 0
    assert planned(model(NEWER, meta=word), kuberay(done.manifest, active=A, pending=B)).change == "none"
    starting = planned(model(NEWER, meta=word), kuberay(done.manifest, active=A, pending=C))
    assert (image(starting.manifest), delay(starting.manifest)) == (NEWER, 0)
    # The first cluster has served: its streams have their time when the next one takes over.
    loading = kuberay(done.manifest, active=A, pending=C, said="DEPLOYING")
    assert delay(planned(model(NEWER, meta=word), loading).manifest) == 960


@pytest.mark.parametrize(
    "more", [{"gpu": {"tensorParallel": 2}}, {"resources": {"limits": {"memory": "99Gi"}}}], ids=["gpus", "memory"]
)
def test_what_takes_more_than_was_approved_is_asked_about_and_the_failed_one_goes(more: dict[str, Any]) -> None:
    first = planned(model(NEW), serving(model(OLD)))
    word = {"annotations": {WORD: first.waiting.rpartition("=")[2]}}
    there = replacing(model(OLD), model(NEW, meta=word))
    done = planned(model(NEWER, meta=word, **more), there)
    assert done.waiting
    assert (done.drop, image(done.manifest)) == (B, OLD)


def test_the_word_for_one_change_approves_no_other_one() -> None:
    first = planned(model(NEW), serving(model(OLD)))
    word = {"annotations": {WORD: first.waiting.rpartition("=")[2]}}
    assert planned(model(NEWER, meta=word), serving(model(OLD))).waiting
    # As a chart's upgrade brings another default, after it was used.
    took_over = kuberay(planned(model(NEW, meta=word), serving(model(OLD))).manifest, active=B)
    assert planned(model(NEW, meta=word), took_over).waiting == ""
    done = planned(model(NEW, meta=word), took_over, settings="inference: {worker_memory: 9Gi}")
    assert done.waiting
    assert done.change != "replacement"


def test_a_word_is_spent_once() -> None:
    """There, back, and there again: the second time is asked about anew."""
    word = {"annotations": {WORD: planned(model(NEW), serving(model(OLD))).waiting.rpartition("=")[2]}}
    there = kuberay(planned(model(NEW, meta=word), serving(model(OLD))).manifest, active=A, pending=B)
    back = kuberay(planned(model(OLD, meta=word), there).manifest, active=A)
    back = kuberay(planned(model(OLD, meta=word), back).manifest, active=A)
    waiting = planned(model(NEW, meta=word), back).waiting
    assert waiting
    # What it asks for then is another word: the one that stands there would do nothing.
    again = {"annotations": {WORD: waiting.rpartition("=")[2]}}
    assert planned(model(NEW, meta=again), back).change == "replacement"


def test_a_word_that_is_written_down_beforehand_is_for_the_change_that_comes_with_it() -> None:
    once = {"annotations": {WORD: "once:engine 2"}}
    done = planned(model(NEW, meta=once), serving(model(OLD)))
    assert (done.change, done.waiting) == ("replacement", "")
    took_over = kuberay(done.manifest, active=B)
    took_over = kuberay(planned(model(NEW, meta=once), took_over).manifest or took_over, active=B)
    assert planned(model(NEWER, meta=once), took_over).waiting
    assert planned(model(NEWER, meta={"annotations": {WORD: "once:engine 3"}}), took_over).change == "replacement"
    # One that came without a change was for none that comes later, nor one that the Model was made with.
    idle = kuberay(planned(model(OLD, meta=once), serving(model(OLD))).manifest, active=A)
    assert planned(model(NEW, meta=once), idle).waiting
    assert planned(model(NEW, meta=once), serving(model(OLD, meta=once))).waiting


ZERO = {"autoscaling": {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 60}}
LONG_AGO = {"creationTimestamp": (NOW - timedelta(days=1)).isoformat()}
AWAKE = {"creationTimestamp": (NOW - timedelta(seconds=1)).isoformat()}
ASLEEP: dict[str, Any] = {"state": "Sleeping", "replicas": 0}


def test_a_sleeping_model_is_replaced_without_a_word_but_not_before_its_last_replica_has_gone() -> None:
    there = serving(model(OLD, meta=AWAKE, **ZERO))
    going = planned(model(NEW, meta=LONG_AGO, status={"replicas": 1}, **ZERO), there)
    assert (going.change, going.waiting, image(going.manifest)) == ("in place", "", OLD)
    asleep = model(NEW, meta=LONG_AGO, status=ASLEEP, **ZERO)
    done = planned(asleep, kuberay(going.manifest, active=A))
    assert (done.change, image(done.manifest)) == ("replacement", NEW)
    assert planned(asleep, kuberay(done.manifest, active=A, pending=B)).change == "none"
    assert settled(asleep, done, active=B).change == "in place"  # its notes


def test_a_model_that_is_woken_meanwhile_wakes_with_its_old_pods_and_asks() -> None:
    """Two sets of pods would want the GPUs at once, and on a full cluster neither would get them all."""
    old = model(OLD, meta=AWAKE, engine={"args": {"seed": 1}}, **ZERO)
    asleep = model(NEW, meta=LONG_AGO, status=ASLEEP, engine={"args": {"seed": 2}}, **ZERO)
    there = kuberay(planned(asleep, serving(old)).manifest, active=A, pending=B)
    awake = model(NEW, meta=AWAKE, status=ASLEEP, engine={"args": {"seed": 2}}, **ZERO)
    done = planned(awake, there)
    assert done.waiting
    assert (done.drop, image(done.manifest), strategy(done.manifest)) == (B, OLD, "None")
    assert app(done.manifest)["args"]["options"]["engine_kwargs"]["seed"] == 1
    assert app(done.manifest)["deployments"][0]["autoscaling_config"]["initial_replicas"] == 1
    # It stays so, and its word begins the replacement again.
    kept = kuberay(done.manifest, active=A)
    again = planned(awake, kept)
    assert (again.waiting, image(again.manifest)) == (done.waiting, OLD)
    word = {**AWAKE, "annotations": {WORD: done.waiting.rpartition("=")[2]}}
    go = planned(model(NEW, meta=word, engine={"args": {"seed": 2}}, **ZERO), kuberay(again.manifest, active=A))
    assert (go.change, image(go.manifest)) == ("replacement", NEW)


def test_one_that_was_approved_goes_on_when_the_model_sleeps_and_wakes() -> None:
    old = model(OLD, meta=AWAKE, **ZERO)
    word = planned(model(NEW, meta=AWAKE, **ZERO), serving(old)).waiting.rpartition("=")[2]
    meta = {"annotations": {WORD: word}}
    done = planned(model(NEW, meta=AWAKE | meta, **ZERO), serving(old))
    there = kuberay(done.manifest, active=A, pending=B)
    asleep = planned(model(NEW, meta=LONG_AGO | meta, status=ASLEEP, **ZERO), there)
    assert image(asleep.manifest) == NEW
    there = kuberay(asleep.manifest, active=A, pending=B)
    awake = planned(model(NEW, meta=AWAKE | meta, status=ASLEEP, **ZERO), there)
    assert (awake.waiting, awake.drop, image(awake.manifest)) == ("", "", NEW)


def test_a_deletion_gives_the_second_cluster_up() -> None:
    there = replacing(model(OLD), model(NEW, meta=GO))
    going = model(NEW, meta=GO | {"deletionTimestamp": NOW.isoformat()})
    done = planned(going, there)
    assert (done.drop, image(done.manifest), done.waiting) == (B, OLD, "")
    assert app(done.manifest)["deployments"][0]["autoscaling_config"]["initial_replicas"] == 0
    assert planned(going, there, around=Around(can_drop=False)).drop == ""


def by_hand(there: dict[str, Any], *, pending: str = "", observed: bool = True) -> dict[str, Any]:
    """Somebody lets the head's container do everything, and KubeRay begins a second cluster for it."""
    meddled = kuberay(there, active=A, pending=pending, observed=observed)
    head = meddled["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    head["securityContext"]["privileged"] = True
    return meddled


@pytest.mark.parametrize("waits", [False, True], ids=["settled", "while a change waits"])
@pytest.mark.parametrize(("pending", "observed"), [("", False), (B, True)])
def test_a_field_by_hand_is_taken_out_with_the_cluster_that_it_began(waits: bool, pending: str, observed: bool) -> None:
    of = model(NEW if waits else OLD)
    meddled = by_hand(serving(model(OLD)), pending=pending, observed=observed)
    done = planned(of, meddled)
    assert bool(done.waiting) == waits
    assert done.drop == pending
    assert image(done.manifest or meddled) == OLD
    assert done.cluster is not None
    (version, remove) = cleaning(meddled, done.cluster)
    assert version == {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}
    path = "/spec/rayClusterConfig/headGroupSpec/template/spec/containers/0/securityContext/privileged"
    assert remove == {"op": "remove", "path": path}
    # KubeRay begins the cluster after all, from what it had read before.
    cleaned = kuberay(done.manifest, active=A, pending=C)
    assert planned(of, cleaned).drop == C


def test_pods_by_hand_that_serve_already_are_replaced() -> None:
    """The controller was away. KubeRay has seen the hands and needs no second cluster, so the first is theirs."""
    meddled = by_hand(serving(model(OLD)))
    done = planned(model(OLD), meddled)
    assert done.drop == ""
    there = kuberay(done.manifest, active=A, pending=B)
    assert planned(model(OLD), there).drop == ""  # else KubeRay would begin one again and again
    assert settled(model(OLD), done, active=B).drop == ""


def test_scaling_replaces_no_cluster_whatever_was_added() -> None:
    there = serving(model(OLD))
    worker = there["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    worker["priorityClassName"] = "high"
    worker["containers"][0]["env"].insert(0, {"name": "MINE", "value": "1"})
    meddled = kuberay(there, active=A, pending=B)
    done = planned(model(OLD, replicas=3), meddled)
    assert app(done.manifest)["deployments"][0]["autoscaling_config"]["max_replicas"] == 3
    assert done.drop == B
    assert done.cluster is not None
    removed = [one["path"].rpartition("/spec/")[2] for one in cleaning(meddled, done.cluster) if one["op"] == "remove"]
    assert removed == ["containers/0/env/0", "priorityClassName"]


def test_what_kuberay_and_the_api_server_add_is_nobodys_hand() -> None:
    there = serving(model(OLD))
    config = there["spec"]["rayClusterConfig"]
    config["workerGroupSpecs"][0] |= {"numOfHosts": 1, "priority": 0, "scaleStrategy": {"workersToDelete": []}}
    config["headGroupSpec"]["template"]["metadata"]["creationTimestamp"] = None
    config["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP"
    assert planned(model(OLD), there).change == "none"


def test_what_an_admission_webhook_adds_each_time_is_put_up_with() -> None:
    there = by_hand(serving(model(OLD)))
    done = planned(model(OLD), there)
    assert done.cluster is not None
    left = '[[["headGroupSpec", "template", "spec", "containers", 0, "securityContext", "privileged"], true]]'
    calm = planned(model(OLD), there, around=Around(tolerated=left))
    assert (calm.change, calm.cluster, calm.drop) == ("none", None, "")


def test_a_replacement_that_a_release_before_began_goes_on() -> None:
    done = planned(model(NEW, meta=GO), serving(model(OLD)))
    there = kuberay(done.manifest, active=A, pending=B)
    for note in ("other-clusters", "replacement-allowed", "replacement-word", "dropped-cluster"):
        del there["metadata"]["annotations"][f"cloudach.dev/{note}"]
    done = planned(model(NEW), there)
    assert (done.drop, done.waiting, image(done.manifest)) == ("", "", NEW)
    assert planned(model(NEW), kuberay(done.manifest, active=A, pending=B)).drop == ""


def test_a_second_cluster_that_hands_cost_its_place_does_not_keep_its_gpus() -> None:
    there = replacing(model(OLD), model(NEW, meta=GO))
    there["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["hostNetwork"] = True
    done = planned(model(NEW, meta=GO), there)
    assert (done.drop, image(done.manifest), delay(done.manifest)) == ("", NEW, 0)
    up = kuberay(done.manifest, active=A, pending=C, said="DEPLOYING")
    assert delay(planned(model(NEW, meta=GO), up).manifest) == 960


def test_a_word_without_end_is_none() -> None:
    there = serving(model(OLD))
    assert planned(model(NEW, meta={"annotations": {WORD: "once:" + "x" * 300}}), there).waiting


@pytest.mark.parametrize("text", ["{", "[]", '{"qwen-aaaaa": 1}', '{"qwen-aaaaa": {"stamp": "x"}}'])
def test_notes_that_somebody_spoils_break_nothing(text: str) -> None:
    there = replacing(model(OLD), model(NEW, meta=GO))
    there["metadata"]["annotations"]["cloudach.dev/other-clusters"] = text
    there["metadata"]["annotations"]["cloudach.dev/dropped-cluster"] = "x y z"
    done = planned(model(NEW, meta=GO), there)
    assert (done.drop, image(done.manifest)) == ("", NEW)
