"""The whole loop: kubectl scales a Model under a hundred streams of the SDK, and nobody notices.

Real: the API server, the chart's rights, controller, gateway, Ray with HAProxy, the SDK. The stand-in for KubeRay takes
the place of pods; the engine is the simulator.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.chaos.crowd import Answer, Ask, Crowd
from tests.support.kube import Cluster
from tests.support.kuberay.operator import Operator, kuberay_operator
from tests.support.kuberay.paper import until
from tests.support.processes import BIN, Server
from tests.support.stack import Gateway, create_key, start_gateway

from .conftest import NAMESPACE
from .test_controller import Shop, model

pytestmark = pytest.mark.timeout(600)

STREAMS = 100
TOKENS = 2400  # two minutes


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


def asks(streams: int, tokens: int, models: tuple[str, ...]) -> list[Ask]:
    body = {
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "temperature": 0,
    }
    return [
        Ask(
            "chat",
            {
                **body,
                "model": models[number % len(models)],
                "messages": [{"role": "user", "content": f"count, visitor {number}"}],
            },
        )
        for number in range(streams)
    ]


def with_adapters(*names: str) -> dict[str, Any]:
    return {"adapters": [{"name": name, "source": {"simulator": {}}} for name in names]}


def whole(answer: Answer, tokens: int) -> bool:
    return not answer.error and answer.finish_reason == "length" and (answer.usage or {})["completion_tokens"] == tokens


@dataclass
class Loop:
    shop: Shop
    operator: Operator
    gateway: Gateway
    key: str

    def crowd(self, streams: int, tokens: int, *models: str) -> Crowd:
        return Crowd(self.gateway.base_url, self.key, asks(streams, tokens, models or ("sim",)), per_s=50)

    def all_answer(self, *models: str) -> bool:
        """AssertionError where one does not."""
        assert [self.answers(model) for model in models] == [200] * len(models)
        return True

    def answers(self, model: str) -> int:
        """The status code of a request for it."""
        body = {"model": model, "prompt": "Hi", "max_tokens": 1}
        headers = {"authorization": f"Bearer {self.key}"}
        url = f"{self.gateway.base_url}/completions"
        return httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False).status_code


@contextmanager
def whole_loop(cluster: Cluster, account: Path, folder: Path, **spec: Any) -> Iterator[Loop]:
    """A Model of one replica that is ready; it is deleted at the end."""
    shop = Shop(cluster)
    with kuberay_operator(cluster, NAMESPACE, "sim") as operator:
        config = folder / "controller.yaml"
        config.write_text(yaml.safe_dump(controller_config(operator, account)))
        gateway_config = {
            "kubernetes": {"enabled": True, "namespaces": [NAMESPACE], "kubeconfig": str(cluster.kubeconfig)}
        }
        with Server([BIN / "cloudach-controller", "--config", config]) as controller:
            shop.apply(model(engine={"args": {"rate": 20.0}}, **spec))
            try:
                until(
                    lambda: shop.status().get("state") == "Ready" or operator.trouble,
                    f"a ready Model: {shop.status()}",
                    within_s=180,
                )
                assert not operator.trouble
                with start_gateway(gateway_config) as gateway:
                    yield Loop(shop, operator, gateway, create_key(gateway))
                assert operator.cluster_changes == 0
                assert controller.alive
            finally:
                shop.run("delete", "model", "sim", "--ignore-not-found", "--wait=false")
                until(lambda: not shop.get("model"), "the Model's end", within_s=150)


def test_scaling_under_streams(cluster: Cluster, account: Path, tmp_path: Path) -> None:
    with whole_loop(cluster, account, tmp_path, replicas=1, drainSeconds=5) as loop:
        (first,) = running(loop.operator)
        with loop.crowd(STREAMS, TOKENS) as crowd:
            loop.shop.run("scale", "model/sim", "--replicas=3")
            loop.shop.state("Ready", ready=3)
            three = running(loop.operator)
            assert first in three, "a replica was restarted"
            loop.shop.run("scale", "model/sim", "--replicas=1")
            loop.shop.state("Ready", ready=1)
            assert running(loop.operator) < three, "the one that stays was restarted"
            assert crowd.running, "the streams were over before the scaling"
            answers = crowd.answers(within_s=240)
        assert len(answers) == STREAMS
        assert [answer for answer in answers if not whole(answer, TOKENS)] == []


def test_adapters_come_and_go_under_streams(cluster: Cluster, account: Path, tmp_path: Path) -> None:
    """Replicas are replaced one by one; an adapter is served when all of them have it, and no stream breaks."""
    with whole_loop(cluster, account, tmp_path, replicas=2, drainSeconds=5, lora=with_adapters("sql")) as loop:
        assert loop.shop.status()["adapters"] == ["sql"]
        assert [loop.answers(name) for name in ("sim:sql", "sim:chat")] == [200, 404]
        before = running(loop.operator)
        with loop.crowd(40, 900, "sim", "sim:sql") as crowd:
            change = {"spec": {"lora": with_adapters("sql", "chat")}}
            loop.shop.run("patch", "model", "sim", "--type=merge", "-p", json.dumps(change))
            until(lambda: loop.answers("sim:chat") == 503, "it is known, and not loaded yet")
            until(lambda: loop.all_answer("sim", "sim:sql") and loop.answers("sim:chat") == 200, "it is loaded")
            assert not running(loop.operator) & before, "a replica without it is there"
            assert loop.shop.status()["adapters"] == ["chat", "sql"]
            answers = crowd.answers(within_s=120)
        assert [answer for answer in answers if not whole(answer, 900)] == []
        assert loop.operator.cluster_changes == 0


def test_asleep_awake_and_deleted_under_streams(cluster: Cluster, account: Path, tmp_path: Path) -> None:
    zero = {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 10}
    with whole_loop(cluster, account, tmp_path, autoscaling=zero, drainSeconds=60) as loop:
        loop.shop.state("Sleeping", ready=0)
        with loop.crowd(10, 40) as crowd:  # the first request wakes it, and all of them wait
            answers = crowd.answers()
        assert [answer for answer in answers if not whole(answer, 40)] == []
        with loop.crowd(20, 300) as crowd:
            sim = f"{loop.operator.endpoint}/sim/stats"
            until(lambda: httpx.get(sim, trust_env=False).json()["running"] == 20, "all streams run")
            loop.shop.run("delete", "model", "sim", "--wait=false")
            answers = crowd.answers()
        assert [answer for answer in answers if not whole(answer, 300)] == []
        until(lambda: not loop.shop.get("model"), "the Model's end", within_s=150)
        assert not loop.shop.get("rayservice")
