"""The overlays of k8s/: they build, hold what they promise, and come from chart and examples as these are now."""

from __future__ import annotations

import subprocess
from functools import cache

import kubernetes_validate
import pytest
import yaml
from cloudach_model_api import Model

from tests.charts.rendered import MINORS, built_in
from tests.support.helm import CHART, Objects, helm, pod_template
from tests.support.kubectl import tool
from tests.support.pod_security import violations
from tests.support.processes import ROOT

K8S = ROOT / "k8s"
EXAMPLES = {
    "single-gpu": "quick-start-single-gpu.yaml",
    "multi-gpu-70b": "multi-gpu-70b.yaml",
    "autoscaling": "autoscaling.yaml",
    "scale-to-zero": "scale-to-zero.yaml",
}


@cache
def built(overlay: str) -> Objects:
    command = [str(tool("kubectl")), "kustomize", str(K8S / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Objects(list(yaml.safe_load_all(done.stdout)))


def test_the_base_is_the_chart_of_now() -> None:
    """If not: make k8s-base."""
    flags = ["--namespace", "cloudach", "--kube-version", "1.37.0", "--values", str(K8S / "base" / "values.yaml")]
    assert helm(["template", "cloudach", str(CHART), *flags]) == (K8S / "base" / "cloudach.yaml").read_text()


def test_the_base_holds_no_secret() -> None:
    assert "kind: Secret\n" not in (K8S / "base" / "cloudach.yaml").read_text()


def test_every_overlay_is_tested() -> None:
    assert {path.name for path in (K8S / "overlays").iterdir()} == set(EXAMPLES)


@pytest.mark.parametrize("overlay", EXAMPLES)
def test_overlay(overlay: str) -> None:
    objects = built(overlay)
    (model,) = objects.all("Model")
    Model.from_object(model)
    example = yaml.safe_load((K8S / "examples" / EXAMPLES[overlay]).read_text())
    assert model["spec"] == example["spec"]
    assert model["metadata"]["namespace"] == "cloudach"
    for one in built_in(objects):
        kubernetes_validate.validate(one, MINORS[-1], strict=True)
    for one in objects:
        assert one["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") != "Helm"
        if one["kind"] in ("Deployment", "StatefulSet"):
            assert violations(pod_template(one)["spec"]) == []


def test_what_each_overlay_promises() -> None:
    replicas = {name: built(name).get("Deployment", "cloudach-gateway")["spec"].get("replicas") for name in EXAMPLES}
    assert replicas == {"single-gpu": 1, "multi-gpu-70b": 3, "autoscaling": None, "scale-to-zero": 1}
    assert built("autoscaling").get("HorizontalPodAutoscaler", "cloudach-gateway")["spec"]["maxReplicas"] == 10
    (model,) = built("scale-to-zero").all("Model")
    assert model["spec"]["autoscaling"]["minReplicas"] == 0
    (model,) = built("multi-gpu-70b").all("Model")
    assert model["spec"]["gpu"]["tensorParallel"] > 1
