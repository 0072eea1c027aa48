"""Several who write one Model: Git, an operator, the controller, the gateways."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.kubectl import CommandFailed, Kubectl

from .cases import HUB, model

pytestmark = pytest.mark.timeout(600)  # the first test waits for a server


def apply(kubectl: Kubectl, obj: dict[str, Any], manager: str, *flags: str) -> None:
    kubectl.apply(obj, flags=("--server-side", f"--field-manager={manager}", *flags))


def partly(name: str, **spec: Any) -> dict[str, Any]:
    """What one of several managers says: only its own fields."""
    return {**model(name), "spec": spec}


def test_a_second_manager_of_a_field_is_told_who_has_it(kubectl: Kubectl) -> None:
    apply(kubectl, model("shared", {"replicas": 2}), "git")
    with pytest.raises(CommandFailed, match=r'conflict with "git": \.spec\.replicas'):
        apply(kubectl, partly("shared", replicas=5), "autoscaler")
    apply(kubectl, partly("shared", replicas=5), "autoscaler", "--force-conflicts")
    assert kubectl.get("model", "shared")["spec"]["replicas"] == 5


def test_helm_applies_beside_kubectl_scale(kubectl: Kubectl) -> None:
    """Helm 4 applies like this. The chart writes the number that is there: else each upgrade would be refused."""
    apply(kubectl, model("chart", {"replicas": 2}), "helm")
    kubectl("scale", "model/chart", "--replicas=5")
    with pytest.raises(CommandFailed, match=r'conflict with "kubectl".*: \.spec\.replicas'):
        apply(kubectl, model("chart", {"replicas": 2}), "helm")
    apply(kubectl, model("chart", {"replicas": 5, "drainSeconds": 90}), "helm")
    kubectl("scale", "model/chart", "--replicas=6")
    assert kubectl.get("model", "chart")["spec"]["replicas"] == 6
    apply(kubectl, model("chart", {"replicas": 4}), "helm", "--force-conflicts")
    assert kubectl.get("model", "chart")["spec"]["replicas"] == 4


def test_aliases_env_and_adapters_of_two_managers_are_put_together(kubectl: Kubectl) -> None:
    def spec(of: str) -> dict[str, Any]:
        adapter = {"name": of, "source": HUB}
        env = [{"name": of.upper(), "value": "1"}]
        return {"aliases": [of], "engine": {"env": env}, "lora": {"adapters": [adapter]}}

    apply(kubectl, model("merged", spec("one")), "one")
    apply(kubectl, partly("merged", **spec("two")), "two")
    read = kubectl.get("model", "merged")["spec"]
    assert sorted(read["aliases"]) == ["one", "two"]
    assert sorted(entry["name"] for entry in read["engine"]["env"]) == ["ONE", "TWO"]
    assert sorted(adapter["name"] for adapter in read["lora"]["adapters"]) == ["one", "two"]
    apply(kubectl, model("merged"), "one")  # it takes back what it gave
    assert kubectl.get("model", "merged")["spec"]["aliases"] == ["two"]


def test_the_controllers_status_and_the_operators_spec_are_apart(kubectl: Kubectl) -> None:
    apply(kubectl, model("apart"), "git")
    status = {"conditions": [condition("Ready", "True")], "readyReplicas": 1}
    apply(kubectl, {**meta("apart"), "status": status}, "cloudach-controller", "--subresource=status")
    apply(
        kubectl,
        {**meta("apart"), "status": {"conditions": [condition("Drift", "False")]}},
        "other",
        "--subresource=status",
    )
    apply(kubectl, model("apart", {"drainSeconds": 30}), "git")
    read = kubectl.get("model", "apart")
    assert read["spec"]["drainSeconds"] == 30
    assert read["status"]["readyReplicas"] == 1
    assert sorted(each["type"] for each in read["status"]["conditions"]) == ["Drift", "Ready"]


def test_two_conditions_of_one_type_are_refused(kubectl: Kubectl) -> None:
    kubectl.apply(model("twins"))
    twins = {"status": {"conditions": [condition("Ready", "True"), condition("Ready", "False")]}}
    with pytest.raises(CommandFailed, match="Duplicate value"):
        kubectl("patch", "model", "twins", "--subresource=status", "--type=merge", "-p", json.dumps(twins))


def test_a_gateways_annotation_changes_no_generation(kubectl: Kubectl) -> None:
    """Else each request for a sleeping Model would look like a change of its spec."""
    apply(kubectl, model("asleep"), "git")
    note = {"metadata": {"annotations": {"cloudach.dev/wake-requested-at": "2026-11-23T06:47:00Z"}}}
    kubectl("patch", "model", "asleep", "--type=merge", "--field-manager=cloudach-gateway", "-p", json.dumps(note))
    apply(kubectl, model("asleep"), "git")
    read = kubectl.get("model", "asleep")["metadata"]
    assert read["annotations"]["cloudach.dev/wake-requested-at"] == "2026-11-23T06:47:00Z"
    assert read["generation"] == 1


def test_a_finalizer_holds_a_deleted_model(kubectl: Kubectl) -> None:
    kubectl.apply({**model("held"), "metadata": {"name": "held", "finalizers": ["cloudach.dev/drain"]}})
    kubectl("delete", "model", "held", "--wait=false")
    assert kubectl.get("model", "held")["metadata"]["deletionTimestamp"]
    kubectl("patch", "model", "held", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))
    assert kubectl("get", "models", "held", "--ignore-not-found") == ""


def meta(name: str) -> dict[str, Any]:
    return {key: value for key, value in model(name).items() if key != "spec"}


def condition(kind: str, status: str) -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": "Tested",
        "message": "",
        "lastTransitionTime": "2026-11-23T06:47:00Z",
    }
