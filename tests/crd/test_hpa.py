"""A HorizontalPodAutoscaler on a Model, as Kubernetes' own controller works on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kube import api_server, require_kube
from tests.support.kubectl import Kubectl
from tests.support.release import prepare
from tests.support.waiting import until

from .cases import model

pytestmark = pytest.mark.timeout(600)  # a server starts


@pytest.fixture
def kubectl() -> Iterator[Kubectl]:
    if not (require_kube() / "kube-controller-manager").is_file():
        pytest.skip("LEFT OUT, needs kube-controller-manager and kube-scheduler in KUBEBUILDER_ASSETS")
    with api_server(controllers=True) as cluster:
        prepare(cluster)
        yield cluster.kubectl


def test_an_hpa_keeps_a_model_within_its_bounds(kubectl: Kubectl) -> None:
    """What it does without anybody's metrics; with them it writes the same field."""
    kubectl.apply(model("chat"), flags=("--validate=false",))
    before = kubectl.get("model", "chat")["spec"]
    assert before["replicas"] == 1
    kubectl("autoscale", "model/chat", "--min=3", "--max=4", "--cpu=80%")
    until(lambda: kubectl.get("model", "chat")["spec"]["replicas"] == 3, within_s=180)
    kubectl("scale", "model/chat", "--replicas=9")
    until(lambda: kubectl.get("model", "chat")["spec"]["replicas"] == 4, within_s=180)
    assert kubectl.get("model", "chat")["spec"] == {**before, "replicas": 4}, "only the replicas"
    until(
        lambda: kubectl.get("hpa", "chat")["status"]["desiredReplicas"] == 4, within_s=180
    )  # written after the replicas
