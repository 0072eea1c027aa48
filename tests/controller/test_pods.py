"""The pods that KubeRay makes of a Model's cluster, against Kubernetes' own rules."""

from __future__ import annotations

from typing import Any

import pytest
from cloudach_controller.resources.form import ray_cluster
from cloudach_controller.settings import parse
from cloudach_model_api.model import Model

from tests.support.pod_security import violations

HUB = {"huggingFace": {"repo": "o/m"}}
SPECS: dict[str, dict[str, Any]] = {
    "plain": {"source": HUB},
    "simulator": {"source": {"simulator": {}}},
    "claims": {
        "source": {"pvc": {"claimName": "w"}},
        "lora": {"adapters": [{"name": "a", "source": {"pvc": {"claimName": "c", "path": "x"}}}]},
    },
}


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """As `ray-operator/controllers/ray/common/pod.go` makes them.

    The head gets a container beside Ray with the options for it, and a worker one before it with Ray's own context.
    """
    metadata = {"name": "m", "namespace": "llm", "uid": "u"}
    cluster = ray_cluster(Model.from_object({"metadata": metadata, "spec": spec}), parse(""))
    head: dict[str, Any] = cluster["headGroupSpec"]["template"]["spec"]
    beside = {"name": "autoscaler"}
    options = cluster["autoscalerOptions"]
    head["containers"].append(beside | {name: options[name] for name in ("securityContext",) if name in options})
    worker: dict[str, Any] = cluster["workerGroupSpecs"][0]["template"]["spec"]
    (main,) = worker["containers"]
    worker["initContainers"] = [{"name": "wait-gcs-ready", "securityContext": main["securityContext"]}]
    return [head, worker]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_pod_of_a_model_passes_pod_security_restricted(spec: dict[str, Any]) -> None:
    assert [violations(pod) for pod in pods(spec)] == [[], []]
