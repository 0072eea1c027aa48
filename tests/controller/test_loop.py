"""The whole loop: kubectl scales a Model under a hundred streams of the SDK, and nobody notices.

Real: the API server, the chart's rights, controller, gateway, Ray with HAProxy, the SDK. The stand-in for KubeRay takes
the place of pods; the engine is the simulator.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.crowd import Ask, Crowd
from tests.support.kube import Cluster
from tests.support.kuberay.operator import Operator, kuberay_operator
from tests.support.kuberay.paper import until
from tests.support.processes import BIN, Server
from tests.support.stack import create_key, start_gateway

from .conftest import NAMESPACE
from .test_controller import Shop, model

pytestmark = pytest.mark.timeout(600)

STREAMS = 100
TOKENS = 900


def controller_config(operator: Operator, account: Path) -> dict[str, Any]:
    return {
        "listen": {"port": 0},
        "kubernetes": {"kubeconfig": str(account), "namespaces": [NAMESPACE]},
        "leader_election": {"namespace": NAMESPACE},
        "ray": {
            "dashboard_url": operator.dashboard,
            "endpoint_url": operator.endpoint,
            "poll_s": 0.5,
            "steady_poll_s": 1,
        },
    }


def running(operator: Operator) -> set[int]:
    return {pid for pid, state in operator.replicas().items() if state == "RUNNING"}


def asks() -> list[Ask]:
    body = {
        "model": "sim",
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "temperature": 0,
    }
    return [
        Ask("chat", {**body, "messages": [{"role": "user", "content": f"count, visitor {number}"}]})
        for number in range(STREAMS)
    ]


def test_scaling_under_streams(cluster: Cluster, account: Path, tmp_path: Path) -> None:
    shop = Shop(cluster)
    with kuberay_operator(cluster, NAMESPACE, "sim") as operator:
        config = tmp_path / "controller.yaml"
        config.write_text(yaml.safe_dump(controller_config(operator, account)))
        gateway_config = {
            "kubernetes": {"enabled": True, "namespaces": [NAMESPACE], "kubeconfig": str(cluster.kubeconfig)}
        }
        with Server([BIN / "cloudach-controller", "--config", config]) as controller:
            shop.apply(model(replicas=1, drainSeconds=5, engine={"args": {"rate": 20.0}}))
            try:
                until(
                    lambda: shop.status().get("state") == "Ready",
                    f"a ready Model: {operator.trouble} {shop.status()}",
                    within_s=180,
                )
                (first,) = running(operator)
                with start_gateway(gateway_config) as gateway:
                    key = create_key(gateway)
                    with Crowd(gateway.base_url, key, asks(), per_s=50) as crowd:
                        shop.run("scale", "model/sim", "--replicas=3")
                        shop.state("Ready", ready=3)
                        three = running(operator)
                        assert first in three
                        shop.run("scale", "model/sim", "--replicas=1")
                        shop.state("Ready", ready=1)
                        assert running(operator) < three
                        assert crowd.running, "the streams were over before the scaling"
                        answers = crowd.answers(within_s=240)
                    broken = [answer for answer in answers if answer.error or answer.finish_reason != "length"]
                    assert (len(answers), broken) == (STREAMS, [])
                    assert {json.dumps(answer.usage) for answer in answers if answer.usage is None} == set()
                    assert all(answer.usage["completion_tokens"] == TOKENS for answer in answers if answer.usage)
                assert operator.cluster_changes == 0
                assert controller.alive
            finally:
                shop.run("delete", "model", "sim", "--wait=false")
                until(lambda: not shop.get("model"), "the Model's end", within_s=90)
