"""`kubectl scale`, and what an HPA does through the scale subresource."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.kubectl import CommandFailed, Kubectl

from .cases import model

pytestmark = pytest.mark.timeout(600)  # the first test waits for a server

SCALE = "/apis/cloudach.dev/v1alpha1/namespaces/default/models/{}/scale"
BOUNDS = "replicas must lie within autoscaling.minReplicas and autoscaling.maxReplicas"


def replicas(kubectl: Kubectl, name: str) -> int:
    return int(kubectl.get("model", name)["spec"]["replicas"])


def set_status(kubectl: Kubectl, name: str, **status: Any) -> None:
    patch = json.dumps({"status": status})
    kubectl("patch", "model", name, "--subresource=status", "--type=merge", "-p", patch)


def test_kubectl_scale(kubectl: Kubectl) -> None:
    kubectl.apply(model("scaled"))
    before = kubectl.get("model", "scaled")
    kubectl("scale", "model/scaled", "--replicas=4")
    after = kubectl.get("model", "scaled")
    assert after["spec"] == {**before["spec"], "replicas": 4}
    kubectl("scale", "model/scaled", "--current-replicas=4", "--replicas=0")
    assert replicas(kubectl, "scaled") == 0
    with pytest.raises(CommandFailed, match="Expected replicas to be 4, was 0"):
        kubectl("scale", "model/scaled", "--current-replicas=4", "--replicas=2")


def test_a_model_that_names_no_replicas_can_be_scaled(kubectl: Kubectl) -> None:
    kubectl.apply(model("unnamed"))
    assert kubectl.raw("get", SCALE.format("unnamed"))["spec"] == {"replicas": 1}


def test_what_an_hpa_reads_and_writes(kubectl: Kubectl) -> None:
    kubectl.apply(model("hpa"))
    set_status(kubectl, "hpa", replicas=1, selector="cloudach.dev/model=hpa,ray.io/node-type=worker")
    scale = kubectl.raw("get", SCALE.format("hpa"))
    assert scale["kind"] == "Scale"
    assert scale["status"] == {"replicas": 1, "selector": "cloudach.dev/model=hpa,ray.io/node-type=worker"}
    scale["spec"]["replicas"] = 3
    assert kubectl.raw("replace", SCALE.format("hpa"), scale)["spec"] == {"replicas": 3}
    assert replicas(kubectl, "hpa") == 3
    with pytest.raises(CommandFailed, match="the object has been modified"):
        kubectl.raw("replace", SCALE.format("hpa"), scale)  # as one that read before another wrote


def test_less_than_none_is_refused(kubectl: Kubectl) -> None:
    kubectl.apply(model("negative"))
    scale = kubectl.raw("get", SCALE.format("negative"))
    scale["spec"]["replicas"] = -1
    with pytest.raises(CommandFailed, match=r"spec\.replicas"):
        kubectl.raw("replace", SCALE.format("negative"), scale)
    assert replicas(kubectl, "negative") == 1


def test_autoscalings_bounds_hold_for_kubectl_scale(kubectl: Kubectl) -> None:
    kubectl.apply(model("bounded", {"autoscaling": {"minReplicas": 2, "maxReplicas": 4}}))
    for beyond in (0, 5):
        with pytest.raises(CommandFailed, match=BOUNDS):
            kubectl("scale", "model/bounded", f"--replicas={beyond}")
    kubectl("scale", "model/bounded", "--replicas=4")
    assert replicas(kubectl, "bounded") == 4


def test_new_bounds_need_no_new_replicas(kubectl: Kubectl) -> None:
    """They are in Git, and the number of replicas mostly is not."""
    kubectl.apply(model("narrowed", {"autoscaling": {"minReplicas": 1, "maxReplicas": 6}}))
    kubectl("scale", "model/narrowed", "--replicas=6")
    kubectl.apply(model("narrowed", {"autoscaling": {"minReplicas": 1, "maxReplicas": 3}}))
    assert replicas(kubectl, "narrowed") == 6
    kubectl.apply(model("switched", {"replicas": 8}))
    kubectl.apply(model("switched", {"autoscaling": {"minReplicas": 2, "maxReplicas": 4}}))
    assert replicas(kubectl, "switched") == 1


def test_applying_again_leaves_what_kubectl_scale_set(kubectl: Kubectl) -> None:
    kubectl.apply(model("gitops"))
    kubectl("scale", "model/gitops", "--replicas=3")
    kubectl.apply(model("gitops", {"drainSeconds": 120}))
    assert replicas(kubectl, "gitops") == 3
