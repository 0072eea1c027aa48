"""The whole loop: kubectl scales a Model under a hundred streams of the SDK, and nobody notices.

Real: the API server, the chart's rights, controller, gateway, Ray with HAProxy, the SDK. The stand-in for KubeRay takes
the place of pods; the engine is the simulator.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.controller.shop import Shop, model
from tests.support.accounts import NAMESPACE
from tests.support.crowd import Answer, Ask, Crowd
from tests.support.kube import Cluster
from tests.support.kuberay.operator import Operator, kuberay_operator
from tests.support.ports import free_port
from tests.support.processes import BIN, Server
from tests.support.stack import Gateway, create_key, start_gateway
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(1200)

STREAMS = 100  # at least, at any time
TOKENS = 300  # 15 s
PER_S = 8
REPLICAS_S = 300  # for replicas to come or go: processes that import Ray, beside a hundred streams


def controller_config(operator: Operator, account: Path) -> dict[str, Any]:
    return {
        "listen": {"port": 0},
        "kubernetes": {"kubeconfig": str(account), "namespaces": [NAMESPACE]},
        "leader_election": {"namespace": NAMESPACE, "duration_s": 600, "renew_s": 500},
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

    def crowd(
        self, streams: int, tokens: int, *, per_s: float = 50, repeat: bool = False, models: tuple[str, ...] = ("sim",)
    ) -> Crowd:
        return Crowd(self.gateway.base_url, self.key, asks(streams, tokens, models), per_s=per_s, repeat=repeat)

    def apply(self, **spec: Any) -> None:
        self.shop.apply(model(engine={"args": {"rate": 20.0}}, **spec))

    def streams(self) -> int:
        """That the gateway has in hand, whichever replica they come from: one that is to go still takes some."""
        text = httpx.get(f"http://127.0.0.1:{self.gateway.config['listen']['metrics_port']}/metrics", timeout=60).text
        (line,) = [line for line in text.splitlines() if line.startswith("cloudach_running_requests ")]
        return int(float(line.split()[1]))

    def all_answer(self, *models: str) -> bool:
        """AssertionError where one does not."""
        assert [self.answers(model) for model in models] == [200] * len(models)
        return True

    def answers(self, model: str) -> int:
        """The status code of a request for it."""
        body = {"model": model, "prompt": "Hi", "max_tokens": 1}
        headers = {"authorization": f"Bearer {self.key}"}
        url = f"{self.gateway.base_url}/completions"
        return httpx.post(url, json=body, headers=headers, timeout=120, trust_env=False).status_code


@pytest.fixture(scope="module")
def loop(cluster: Cluster, account: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A Model of one replica that is ready; it is deleted at the end, if no test has."""
    shop = Shop(cluster)
    with kuberay_operator(cluster, NAMESPACE, "sim") as operator:
        config = tmp_path_factory.mktemp("loop") / "controller.yaml"
        config.write_text(yaml.safe_dump(controller_config(operator, account)))
        gateway_config = {
            "kubernetes": {"enabled": True, "namespaces": [NAMESPACE], "kubeconfig": str(cluster.kubeconfig)},
            "listen": {"metrics_port": free_port()},
            "failover": {"budget_s": 120, "attempts": 100},
        }
        with (
            Server([BIN / "cloudach-controller", "--config", config]) as controller,
            start_gateway(gateway_config) as gateway,
        ):
            loop = Loop(shop, operator, gateway, create_key(gateway))
            loop.apply(replicas=1, drainSeconds=5)
            try:
                try:
                    shop.state("Ready", within_s=REPLICAS_S)
                except AssertionError as error:
                    raise AssertionError(f"{shop.status()}; {operator.trouble}") from error
                yield loop
                assert operator.cluster_changes == 0
                assert controller.alive
            finally:
                shop.run("delete", "model", "sim", "--ignore-not-found", "--wait=false")
                until(lambda: not shop.get("model"), "the Model's end", within_s=REPLICAS_S)


def test_only_the_gateway_gets_an_answer_of_the_engines(loop: Loop) -> None:
    """By the key that the controller made, from the Secret to Ray's replicas and to the gateway."""
    url, body = f"{loop.operator.endpoint}/v1/completions", {"model": "sim", "prompt": "Hi", "max_tokens": 1}
    for key in (None, loop.key):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        assert httpx.post(url, json=body, headers=headers, timeout=120, trust_env=False).status_code == 401
    assert loop.answers("sim") == 200
    assert loop.shop.status()["engineKey"]


def test_scaling_under_streams(loop: Loop) -> None:
    (first,) = running(loop.operator)
    with loop.crowd(STREAMS, TOKENS, per_s=PER_S, repeat=True) as crowd:
        until(lambda: loop.streams() >= STREAMS, f"{STREAMS} streams at a time")
        loop.shop.run("scale", "model/sim", "--replicas=3")
        loop.shop.state("Ready", ready=3, within_s=REPLICAS_S)
        three = running(loop.operator)
        assert first in three, "a replica was restarted"
        time.sleep(5)  # the new ones get streams, too, which are to outlive them
        loop.shop.run("scale", "model/sim", "--replicas=1")
        loop.shop.state("Ready", ready=1, within_s=REPLICAS_S)
        assert running(loop.operator) < three, "the one that stays was restarted"
        until(lambda: loop.streams() >= STREAMS, f"{STREAMS} streams at a time")
        crowd.enough()
        answers = crowd.answers()
    assert len(answers) > STREAMS
    assert [answer for answer in answers if not whole(answer, TOKENS)] == []


def test_autoscaling_comes_and_goes_without_a_restart(loop: Loop) -> None:
    (first,) = running(loop.operator)
    loop.apply(replicas=1, drainSeconds=5, autoscaling={"minReplicas": 2, "maxReplicas": 3})
    loop.shop.state("Ready", ready=2, within_s=REPLICAS_S)
    two = running(loop.operator)
    assert first in two, "it was restarted when autoscaling came"
    loop.apply(replicas=1, drainSeconds=5)
    loop.shop.state("Ready", ready=1, within_s=REPLICAS_S)
    assert running(loop.operator) < two, "it was restarted when autoscaling went"


def test_adapters_come_and_go_under_streams(loop: Loop) -> None:
    """Replicas are replaced one by one; an adapter is served when all of them have it, and no stream breaks."""
    loop.apply(replicas=2, drainSeconds=5, lora=with_adapters("sql"))
    until(lambda: loop.answers("sim:sql") == 200, "the first adapter", within_s=REPLICAS_S)
    loop.shop.state("Ready", ready=2, within_s=REPLICAS_S)
    assert loop.answers("sim:chat") == 404
    before = running(loop.operator)
    with loop.crowd(40, TOKENS, per_s=PER_S, repeat=True, models=("sim", "sim:sql")) as crowd:
        until(lambda: loop.streams() >= 40, "40 streams at a time")
        loop.apply(replicas=2, drainSeconds=5, lora=with_adapters("sql", "chat"))
        until(lambda: loop.answers("sim:chat") == 503, "it is known, and not loaded yet")
        until(
            lambda: loop.all_answer("sim", "sim:sql") and loop.answers("sim:chat") == 200,
            "it is loaded",
            within_s=REPLICAS_S,
        )
        assert not running(loop.operator) & before, "a replica without it is there"
        assert loop.shop.status()["adapters"] == ["chat", "sql"]
        crowd.enough()
        answers = crowd.answers()
    assert [answer for answer in answers if not whole(answer, TOKENS)] == []


def test_asleep_awake_and_deleted_under_streams(loop: Loop) -> None:
    loop.apply(autoscaling={"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 10}, drainSeconds=300)
    loop.shop.state("Sleeping", ready=0, within_s=REPLICAS_S)
    with loop.crowd(10, 40) as crowd:  # the first request wakes it, and all of them wait
        answers = crowd.answers()
    assert [answer for answer in answers if not whole(answer, 40)] == []
    with loop.crowd(20, 2 * TOKENS) as crowd:
        until(lambda: loop.streams() == 20, "all streams run")
        loop.shop.run("delete", "model", "sim", "--wait=false")
        answers = crowd.answers()
    assert [answer for answer in answers if not whole(answer, 2 * TOKENS)] == []
    until(lambda: not loop.shop.get("model"), "the Model's end", within_s=REPLICAS_S)
    assert not loop.shop.get("rayservice")
