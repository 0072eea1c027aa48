"""What an operator sees: columns, short name, category, explain, describe, wait."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from cloudach_model_api import ConditionType, ModelStatus, Reason, State, set_condition

from tests.support.kubectl import Kubectl
from tests.support.waiting import until

from .cases import model

pytestmark = pytest.mark.timeout(600)  # the first test waits for a server

STATUS = ModelStatus(
    observed_generation=1,
    id="meta-llama/Llama-3.1-8B-Instruct",
    state=State.DEGRADED,
    replicas=2,
    ready_replicas=1,
    desired_replicas=3,
    selector="cloudach.dev/model=columns",
    endpoint="http://columns-serve-svc.default.svc:8000",
    upstream_model="columns",
    conditions=set_condition(
        set_condition(
            set_condition(
                (), ConditionType.READY, True, Reason.REPLICAS_READY, "1 of 3", generation=1, now=datetime.now(UTC)
            ),
            ConditionType.PROGRESSING,
            False,
            Reason.REPLACEMENT_PENDING,
            "To allow it: kubectl annotate",
            generation=1,
            now=datetime.now(UTC),
        ),
        ConditionType.DEGRADED,
        True,
        Reason.NO_GPU_NODE_FITS,
        "no node has 4 free nvidia.com/gpu: add one, or lower spec.replicas",
        generation=1,
        now=datetime.now(UTC),
    ),
)


def with_status(kubectl: Kubectl, name: str) -> None:
    kubectl.apply(model(name, {"id": STATUS.id}))
    patch = json.dumps({"status": STATUS.to_object()})
    kubectl("patch", "model", name, "--subresource=status", "--type=merge", "-p", patch)


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


def test_every_status_field_is_in_the_crd(kubectl: Kubectl) -> None:
    with_status(kubectl, "columns")
    assert kubectl.get("model", "columns")["status"] == STATUS.to_object()


def test_columns(kubectl: Kubectl) -> None:
    with_status(kubectl, "columns")
    head, row = rows(kubectl("get", "models"))
    assert head == ["NAME", "MODEL", "READY", "DESIRED", "STATE", "PROGRESS", "AGE"]
    assert row[:-1] == ["columns", "meta-llama/Llama-3.1-8B-Instruct", "1", "3", "Degraded", "ReplacementPending"]


def test_more_columns(kubectl: Kubectl) -> None:
    with_status(kubectl, "columns")
    head, row = rows(kubectl("get", "mdl", "columns", "-o", "wide"))
    assert head == ["NAME", "MODEL", "READY", "DESIRED", "STATE", "PROGRESS", "ENDPOINT", "REASON", "AGE"]
    assert row[6:8] == ["http://columns-serve-svc.default.svc:8000", "ReplicasReady"]


def test_category(kubectl: Kubectl) -> None:
    kubectl.apply(model("listed"))
    assert "model.cloudach.dev/listed" in kubectl("get", "cloudach", "-o", "name")


def test_explain(kubectl: Kubectl) -> None:
    # The server adds the CRD to its OpenAPI a moment after it serves it.
    until(lambda: kubectl.run("explain", "model").returncode == 0, within_s=180)
    said = kubectl("explain", "model.spec.gpu.perPod")
    assert "GPUs of one worker pod" in " ".join(said.split())


def test_describe_tells_what_to_do(kubectl: Kubectl) -> None:
    with_status(kubectl, "described")
    said = kubectl("describe", "model", "described")
    assert "no node has 4 free nvidia.com/gpu: add one, or lower spec.replicas" in said
    assert "NoGpuNodeFits" in said


def test_wait_for_a_condition(kubectl: Kubectl) -> None:
    with_status(kubectl, "awaited")
    kubectl("wait", "model/awaited", "--for=condition=Ready", "--timeout=60s")
    assert kubectl.run("wait", "model/awaited", "--for=condition=Progressing", "--timeout=1s").returncode != 0
