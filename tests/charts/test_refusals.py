"""What the chart refuses, and in which words; and that its documents are those of its values."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.charts.case import nested
from tests.support.helm import CHART, HelmFailed, helm, render, template
from tests.support.processes import ROOT

OFF = ("--set", "preflight=false")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gatway": {}}, "'gatway' not allowed"),
        ({"gateway.replica": 3}, "at '/gateway': additional properties 'replica' not allowed"),
        ({"gateway.config": {"timeout": {}}}, "at '/gateway/config': additional properties 'timeout' not allowed"),
        ({"gateway.config": {"timeouts": {"total": 3}}}, "additional properties 'total' not allowed"),
        ({"gateway.config": {"timeouts": {"drain_s": 3}}}, "additional properties 'drain_s' not allowed"),
        ({"gateway.replicas": "many"}, "at '/gateway/replicas': got string, want integer"),
        ({"gateway.image.digest": "sha256:short"}, "at '/gateway/image/digest'"),
        ({"ingress.flavour": "apache"}, "at '/ingress/flavour': value must be one of 'nginx'"),
        (
            {"models": [{"name": "m", "spec": {"source": {}, "replcas": 1}}]},
            "additional properties 'replcas' not allowed",
        ),
        ({"models": [{"spec": {}}]}, "missing property 'name'"),
        ({"imagePullSecrets": ["reg"]}, "at '/imagePullSecrets/0': got string, want object"),
    ],
)
def test_the_schema_names_the_mistake(values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmFailed) as refusal:
        render(nested(values))
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"valkey.enabled": False}, "name a Secret with the URL of yours in redis.existingSecret"),
        ({"redis.existingSecret": "s"}, "set valkey.enabled to false"),
        ({"gateway.watchModels": False}, "list models in gateway.config.models"),
        (
            {"models": [{"name": "m", "namespace": "x", "spec": {"source": {}}}]},
            "namespace x, which watchNamespaces does not hold",
        ),
        ({"models": [{"name": "m", "spec": {"source": {}}}], "controller.enabled": False}, "nothing would serve them"),
        *(
            ({"fullnameOverride": name}, f"would be called {name}-…, after fullnameOverride: Services take a-z")
            for name in ("UPPER", "0777", "under_score", "dot.ted", "-a")
        ),
        ({"nameOverride": "LLM"}, "would be called demo-LLM-…, after nameOverride"),
        ({"watchNamespaces": ["*", "a"]}, '"*" alone means all of them'),
        ({"gateway.autoscaling.kind": "keda"}, "list its triggers in gateway.autoscaling.triggers"),
        ({"gateway.autoscaling.minReplicas": 50}, "minReplicas is above gateway.autoscaling.maxReplicas"),
        ({"gatewayApi.enabled": True}, "name yours in gatewayApi.parentRefs"),
        (
            {"gatewayApi.enabled": True, "gatewayApi.gateway.create": True},
            "gatewayApi.gateway.create needs gatewayApi.gateway.className",
        ),
        (
            {"ingress.enabled": True, "ingress.tls": {"enabled": True, "issuer": "a", "clusterIssuer": "b"}},
            "one of them issues the certificate",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmFailed) as refusal:
        render(nested(values))
    assert said in str(refusal.value)


KNOWN = {"ray.io/v1/RayService", "cloudach.dev/v1alpha1/Model", "cloudach.dev/v1alpha1/ModelUse"}


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, "ray.io/v1/RayService"),
        ({}, "cloudach.dev/v1alpha1/Model"),
        ({}, "cloudach.dev/v1alpha1/ModelUse"),
        ({"gateway.autoscaling": {"kind": "keda", "triggers": [{"type": "cpu"}]}}, "keda.sh/v1alpha1/ScaledObject"),
        ({"gatewayApi": {"enabled": True, "parentRefs": [{"name": "g"}]}}, "gateway.networking.k8s.io/v1/HTTPRoute"),
        ({"monitoring.serviceMonitor.enabled": True}, "monitoring.coreos.com/v1/ServiceMonitor"),
        ({"monitoring.podMonitor.enabled": True}, "monitoring.coreos.com/v1/PodMonitor"),
        ({"monitoring.prometheusRule.enabled": True}, "monitoring.coreos.com/v1/PrometheusRule"),
    ],
)
def test_a_cluster_without_a_crd_is_told_which_and_what_to_do(values: dict[str, Any], missing: str) -> None:
    known = [argument for kind in sorted(KNOWN - {missing}) for argument in ("--api-versions", kind)]
    with pytest.raises(HelmFailed) as refusal:
        template(nested(values), known)
    assert f"does not know {missing}: install " in str(refusal.value)
    assert template(nested(values), [*known, "--api-versions", missing])


def test_schema_and_readme_are_those_of_the_values() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "chart_docs.py"), "check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_helm_lint_has_nothing_to_say() -> None:
    assert "[WARNING]" not in helm(["lint", "--strict", str(CHART), *OFF])


def test_crds_are_no_part_of_the_chart() -> None:
    """They have a chart of their own: helm neither upgrades those of a chart's crds folder nor keeps templated ones."""
    assert not (CHART / "crds").exists()
    assert not render().all("CustomResourceDefinition")
