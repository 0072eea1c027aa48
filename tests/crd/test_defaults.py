"""What the API server fills in, and what it lets through no mistake of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudach_model_api import Model

from tests.support.kubectl import CommandFailed, Kubectl

from .cases import model

pytestmark = pytest.mark.timeout(600)  # the first test waits for a server


def created(kubectl: Kubectl, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """As the API server would store it."""
    said = kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(model("defaults", spec)))
    return dict(json.loads(said))


def test_defaults(kubectl: Kubectl) -> None:
    assert created(kubectl)["spec"] == {
        "source": {"huggingFace": {"repo": "Qwen/Qwen3-8B"}},
        "gpu": {"resourceName": "nvidia.com/gpu", "tensorParallel": 1, "pipelineParallel": 1},
        "replicas": 1,
        "routing": "balanced",
        "drainSeconds": 60,
    }


def test_defaults_of_autoscaling_and_of_a_token(kubectl: Kubectl) -> None:
    source = {"huggingFace": {"repo": "a/b", "tokenSecret": {"name": "hub"}}}
    spec = created(kubectl, {"autoscaling": {"maxReplicas": 4}, "source": source})["spec"]
    assert spec["autoscaling"] == {
        "minReplicas": 1,
        "maxReplicas": 4,
        "targetOngoingRequests": 32,
        "idleSeconds": 600,
        "upscaleDelaySeconds": 15,
        "downscaleDelaySeconds": 300,
    }
    assert spec["source"]["huggingFace"]["tokenSecret"] == {"name": "hub", "key": "token"}


def test_who_reads_it_fills_in_the_same(kubectl: Kubectl) -> None:
    """The controller may meet a Model that no API server has seen, in `helm template` or on an old cluster."""
    spec = {"autoscaling": {"maxReplicas": 4}, "gpu": {"tensorParallel": 2}, "engine": {"args": {"seed": 1}}}
    assert Model.from_object(created(kubectl, spec)).spec == Model.from_object(model("defaults", spec)).spec


def test_engine_arguments_come_through_whatever_they_are(kubectl: Kubectl) -> None:
    args = {
        "gpu_memory_utilization": 0.92,
        "enforce_eager": True,
        "hf_overrides": {"rope_scaling": {"factor": 2.0, "types": ["yarn"]}},
        "limit_mm_per_prompt": {"image": 4},
        "enable_prefix_caching": True,
    }
    assert created(kubectl, {"engine": {"args": args}})["spec"]["engine"]["args"] == args


def test_affinity_comes_through_as_kubernetes_defines_it(kubectl: Kubectl) -> None:
    zone = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    assert created(kubectl, {"affinity": affinity})["spec"]["affinity"] == affinity


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"replicaCount": 2}, "spec.replicaCount"),
        ({"affinity": {"nodeAfinity": {}}}, "spec.affinity.nodeAfinity"),
        ({"affinity": {"podAffinity": {"required": []}}}, "spec.affinity.podAffinity.required"),
        ({"gpu": {"tensorparallel": 2}}, "spec.gpu.tensorparallel"),
        ({"source": {"simulator": {"speed": 9}}}, "spec.source.simulator.speed"),
        ({"autoscaling": {"maxReplicas": 2, "min": 1}}, "spec.autoscaling.min"),
    ],
)
def test_a_misspelt_field_is_refused_by_its_name(kubectl: Kubectl, spec: dict[str, Any], field: str) -> None:
    with pytest.raises(CommandFailed, match=f'unknown field "{field}"'):
        created(kubectl, spec)


def test_a_model_without_a_spec_is_refused(kubectl: Kubectl) -> None:
    bare = {key: value for key, value in model("bare").items() if key != "spec"}
    with pytest.raises(CommandFailed, match="spec: Required value"):
        kubectl.apply(bare)


def test_the_status_is_written_through_its_own_subresource_alone(kubectl: Kubectl) -> None:
    kubectl.apply({**model("with-status"), "status": {"state": "Ready"}})
    assert "status" not in kubectl.get("model", "with-status")
    patch = json.dumps({"status": {"state": "Ready", "readyReplicas": 1}, "spec": {"replicas": 5}})
    kubectl("patch", "model", "with-status", "--subresource=status", "--type=merge", "-p", patch)
    read = kubectl.get("model", "with-status")
    assert read["status"] == {"state": "Ready", "readyReplicas": 1}
    assert (read["spec"]["replicas"], read["metadata"]["generation"]) == (1, 1)
