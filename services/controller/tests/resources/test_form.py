"""Which clusters go on as they are: after an upgrade, after a change of settings, and after hands on the RayService."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudach_controller.decide.plan import Plan, plan
from cloudach_controller.decide.replicas import demand
from cloudach_controller.resources import additions
from cloudach_controller.resources.cluster import asked_cluster, short
from cloudach_controller.settings import parse
from cloudach_model_api.model import Model

NODES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}
RICH = {
    "source": {"huggingFace": {"repo": "Qwen/Qwen3-8B", "tokenSecret": {"name": "hf"}}},
    "replicas": 2,
    "gpu": {"tensorParallel": 2, "type": "H100"},
    "resources": {"limits": {"memory": "64Gi"}},
    "nodeSelector": {"pool": "b"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": NODES}},
    "serviceAccountName": "ray",
    "imagePullSecrets": [{"name": "reg"}],
    "routing": "prefixAware",
    "engine": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
    "lora": {"adapters": [{"name": "c", "source": {"pvc": {"claimName": "adapters", "path": "x"}}}]},
}
OWN = """
inference: {image: 'registry.example.com/inference:1', env: {A: b}}
ray: {gcs_redis_address: 'redis:6379', gcs_redis_secret: gcs}
"""
KINDS = {
    "plain": ({"source": {"huggingFace": {"repo": "Qwen/Qwen3-8B"}}, "replicas": 2}, ""),
    "simulator": ({"source": {"simulator": {}}}, ""),
    "rich": (RICH, OWN),
}
RELEASED = {
    ("0.1.0", "plain"): "98789662ecd38c16",
    ("0.1.0", "simulator"): "25a06b09ea5f18db",
    ("0.1.0", "rich"): "243c8a67a4dae1f8",
    ("0.2.0", "plain"): "6251130ff2bc0c3f",
    ("0.2.0", "simulator"): "90d953fbd323bc87",
    ("0.2.0", "rich"): "3d49489f8675cc23",
    ("0.2.0 without keys", "plain"): "7a264eae5ab88e51",
    ("0.2.0 without keys", "simulator"): "a6107188e763cb96",
    ("0.2.0 without keys", "rich"): "e0bec5983c6a485a",
    ("0.2.0 with tokens", "plain"): "306d4f50e9e32409",
    ("0.2.0 with tokens", "simulator"): "de5eaba607eadeaf",
    ("0.2.0 with tokens", "rich"): "fc90b0980915b59f",
}
"""`cloudach.dev/cluster-hash` as these releases wrote it: a hash over every letter of the rayClusterConfig."""


def model(spec: dict[str, Any], **meta: Any) -> Model:
    metadata = {"name": "qwen", "namespace": "llm", "uid": "u1", "generation": 1, **meta}
    return Model.from_object({"metadata": metadata, "spec": spec})


def planned(wanted: Model, there: dict[str, Any] | None, settings: str = "") -> Plan:
    now = datetime(2026, 11, 1, 12, tzinfo=UTC)
    return plan(wanted, demand(wanted, now), there, parse(settings), target=None, now=now)


def served(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """The RayService when its first cluster serves."""
    assert manifest is not None
    return {**copy.deepcopy(manifest), "status": {"activeServiceStatus": {"rayClusterName": "qwen-aaaaa"}}}


def made(of: Model, settings: str = "") -> dict[str, Any]:
    first = served(planned(of, None, settings).manifest)
    return served(planned(of, first, settings).manifest or first)


def cluster(manifest: dict[str, Any] | None) -> dict[str, Any]:
    assert manifest is not None
    found: dict[str, Any] = manifest["spec"]["rayClusterConfig"]
    return found


def of_release(release: str, kind: str) -> dict[str, Any]:
    """A RayService as that release left it. The hash, which covers all of the cluster, says that it is right."""
    spec, settings = KINDS[kind]
    of, read = model(spec), parse(settings)
    there = made(of, settings)
    then = asked_cluster(of, read)
    if release in ("0.2.0", "0.2.0 with tokens"):
        additions.lock(then, of, read)
    if release in ("0.2.0", "0.2.0 without keys"):
        additions.drop_token(then, of, read)
    assert short(then) == RELEASED[release, kind]
    there["spec"]["rayClusterConfig"] = then
    there["metadata"]["annotations"]["cloudach.dev/cluster-hash"] = short(then)
    del there["metadata"]["annotations"]["cloudach.dev/cluster"]
    return there


@pytest.mark.parametrize(("release", "kind"), RELEASED)
def test_an_upgrade_replaces_no_cluster(release: str, kind: str) -> None:
    """Nor does a scaling after it, and what somebody changes by hand is still put right."""
    before = of_release(release, kind)
    spec, settings = KINDS[kind]
    then = copy.deepcopy(cluster(before))
    done = planned(model(spec), before, settings)
    assert (done.change, done.waiting) == ("in place", "")  # the record is added
    assert cluster(done.manifest) == then
    assert done.manifest is not None
    assert planned(model(spec), served(done.manifest), settings).change == "none"
    scaled = planned(model(spec | {"replicas": 5}), served(done.manifest), settings)
    assert cluster(scaled.manifest) == then
    del before["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["securityContext"]
    assert cluster(planned(model(spec), before, settings).manifest) == then


@pytest.mark.parametrize("release", ["0.1.0", "0.2.0"])
def test_a_change_of_the_pods_after_an_upgrade_still_asks(release: str) -> None:
    before = of_release(release, "plain")
    changed = KINDS["plain"][0] | {"image": "example.com/engine:2"}
    assert planned(model(changed), before).waiting
    allowed = planned(model(changed, annotations={"cloudach.dev/allow-replacement": "always"}), before)
    assert allowed.change == "replacement"
    assert cluster(allowed.manifest) == cluster(made(model(changed)))


def another(cluster: dict[str, Any], *_: Any) -> None:
    """What a later release adds to the pods."""
    additions.worker_pod(cluster)["terminationGracePeriodSeconds"] = 7


def test_what_a_release_adds_replaces_no_cluster_and_is_there_after_the_next_replacement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = KINDS["plain"][0]
    before = made(model(plain))
    monkeypatch.setattr("cloudach_controller.resources.form.ALL", (*additions.ALL, another))
    assert planned(model(plain), before).change == "none"
    scaled = planned(model(plain | {"replicas": 5}), before)
    assert scaled.change == "in place"
    assert cluster(scaled.manifest) == cluster(before)
    allowed = {"annotations": {"cloudach.dev/allow-replacement": "always"}}
    done = planned(model(plain | {"image": "example.com/engine:2"}, **allowed), before)
    assert additions.worker_pod(cluster(done.manifest))["terminationGracePeriodSeconds"] == 7


def test_hands_on_a_cluster_of_another_form_are_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a change waits for the operator's word."""
    plain = KINDS["plain"][0]
    before = made(model(plain))
    monkeypatch.setattr("cloudach_controller.resources.form.ALL", (*additions.ALL, another))
    drifted = copy.deepcopy(before)
    additions.worker_pod(cluster(drifted))["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    for spec in (plain, plain | {"image": "example.com/engine:2"}):
        done = planned(model(spec), drifted)
        assert done.change == "in place"
        assert cluster(done.manifest) == cluster(before)


@pytest.mark.parametrize("record", [None, "", "{", "[]", json.dumps({"rayVersion": "1"})])
def test_a_record_that_somebody_spoils_replaces_nothing(record: str | None) -> None:
    plain = model(KINDS["plain"][0])
    before = made(plain)
    spoiled = copy.deepcopy(before)
    annotations = spoiled["metadata"]["annotations"]
    annotations.pop("cloudach.dev/cluster")
    if record is not None:
        annotations["cloudach.dev/cluster"] = record
    assert cluster(planned(plain, spoiled).manifest) == cluster(before)


def test_the_release_before_does_not_take_the_cluster_for_its_own() -> None:
    """Because it would make its own text of it at once. What it does not know, it asks about."""
    for spec, settings in KINDS.values():
        of = model(spec)
        stamp = made(of, settings)["metadata"]["annotations"]["cloudach.dev/cluster-hash"]
        assert stamp not in RELEASED.values()
