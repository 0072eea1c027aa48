"""Clients while the pods of a Model come, change and go: with the controller, and KubeRay as its operator behaves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_models.conftest import Site
from tests.gateway_models.platform import Client, Platform, crowd, platform
from tests.support.kube import Cluster
from tests.support.ports import free_port
from tests.support.stack import create_key, start_gateway
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)

SERVES = {"replicas": 1}


@pytest.fixture(scope="module")
def running(cluster: Cluster, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(cluster, kubeconfig, tmp_path_factory.mktemp("platform"), engines=8) as found:
        yield found


@pytest.fixture
def it(running: Platform) -> Iterator[Platform]:
    """Without a Model."""
    running.paper.ready_after_s = 0.3
    for sim in running.sims:
        sim.reset()
        sim.configure(rate=60)
    yield running
    running.forget("llama")


def serve(it: Platform, **spec: Any) -> None:
    it.apply("llama", **spec)
    until(lambda: it.endpoints("llama"))
    until(lambda: it.site.code("llama")[0] == 200)


def failures(clients: list[Client]) -> list[str]:
    return [problem for client in clients for problem in client.failures]


@pytest.mark.parametrize("keep", [False, True], ids=["new connections", "kept connections"])
def test_a_replacement_under_load(it: Platform, keep: bool) -> None:
    """Nobody fails though there is no endpoint for a while; and the old cluster, which runs on, is asked no more."""
    serve(it, image="example.com/engine:1", **SERVES)
    it.paper.ready_after_s = 3.0
    (old,) = it.endpoints("llama")
    first = it.paper.active("llama")
    with crowd(it.site, "llama", 50, keep=keep) as clients:
        it.patch("llama", image="example.com/engine:2")
        until(lambda: it.paper.active("llama") not in ("", first))
        until(lambda: not it.endpoints("llama"))
        (new,) = until(lambda: [port for port in it.endpoints("llama") if port != old])
        until(lambda: it.asked(new) > 100)
        at_old = it.asked(old)
        answered = sum(client.answered for client in clients)
        until(lambda: sum(client.answered for client in clients) > answered + 200)
    assert failures(clients) == []
    assert it.asked(old) == at_old
    assert it.paper.dropped("llama") == [first], "it is still there"


def test_a_pod_that_ends_gets_no_new_request(it: Platform) -> None:
    """Its streams run out."""
    serve(it, replicas=2)
    until(lambda: len(it.endpoints("llama")) == 2)
    before = set(it.endpoints("llama"))
    it.paper.held.add("llama")
    try:
        with crowd(it.site, "llama", 10, keep=True) as clients:
            until(lambda: all(it.asked(port) > 20 for port in before))
            it.patch("llama", replicas=1)
            (left,) = until(lambda: len(found := it.endpoints("llama")) == 1 and found)
            (ending,) = before - {left}
            _wait_for(it, left, 50)  # the gateway may hear of it a moment later than we
            at_ending = it.asked(ending)
            _wait_for(it, left, 100)
        assert it.asked(ending) == at_ending
        assert failures(clients) == []
    finally:
        it.paper.held.discard("llama")


def _wait_for(it: Platform, port: int, requests: int) -> None:
    """So many more at this engine."""
    wanted = it.asked(port) + requests
    until(lambda: it.asked(port) >= wanted)


def test_a_hole_of_several_seconds_loses_nobody(it: Platform) -> None:
    """All pods are lost: what runs is continued at the next one, what comes meanwhile waits for it."""
    serve(it, **SERVES)
    (lost,) = it.endpoints("llama")
    it.engine(lost).configure(rate=8)  # 12 tokens take longer than the loss
    plain = [Client(it.site, "llama", keep=False, tools=False) for _ in range(10)]
    whole = [Client(it.site, "llama", keep=False, tools=False, stream=False) for _ in range(5)]
    clients = plain + whole
    try:
        until(lambda: it.asked(lost) >= 15)
        it.paper.unready.add("llama")
        pod = next(name for name in it.paper.pods(it.paper.active("llama")) if "head" not in name)
        it.cluster.kubectl("-n", "serving", "delete", "pod", pod, "--wait=false", "--grace-period=0", "--force")
        until(lambda: not it.endpoints("llama"))
        until(lambda: it.site.metric("cloudach_models", state="ready") == 0)
        assert it.engine(lost).strike("end") > 0
        until(
            lambda: (
                it.site.metric("cloudach_model_wait_seconds_count", model="llama", outcome="ready") is not None or True
            )
        )
        answered = [client.answered for client in clients]
        it.paper.unready.discard("llama")
        until(lambda: all(now.answered > then for now, then in zip(clients, answered, strict=True)))
    finally:
        it.paper.unready.discard("llama")
        for client in clients:
            client.stop()
        for client in clients:
            client.join()
    assert failures(clients) == []


def test_requests_that_wake_a_model_are_answered(it: Platform) -> None:
    """Twenty of twenty: by a gateway that has just started, and by one that has connections to the pods of before."""
    it.paper.ready_after_s = 1.0
    serve(it, **SERVES)
    for _ in range(5):
        assert it.site.code("llama")[0] == 200
    it.forget("llama")
    it.apply("llama", autoscaling={"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 10})
    until(lambda: it.state("llama") == "Sleeping" and not it.endpoints("llama"))
    port = free_port()
    with start_gateway({**it.config, "listen": {"metrics_port": port}}) as gateway, ThreadPoolExecutor(20) as pool:
        cold = Site(it.cluster, it.site.sim, gateway, create_key(gateway), port)
        for site in (cold, it.site):
            until(lambda site=site: site.metric("cloudach_models", state="asleep") == 1)
        asked = [(site, stream) for site in (cold, it.site) for stream in (True, False) for _ in range(5)]
        assert list(pool.map(lambda one: _asked(one[0], stream=one[1]), asked)) == ["answered"] * 20


def _asked(site: Site, *, stream: bool) -> str:
    if not stream:
        answer = site.ask("llama")
        return "answered" if answer.status_code == 200 else f"{answer.status_code} {answer.text}"
    with httpx.stream(
        "POST",
        f"{site.gateway.base_url}/chat/completions",
        headers={"authorization": f"Bearer {site.key}"},
        json={"model": "llama", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "stream": True},
        timeout=150,
    ) as streamed:
        text = streamed.read().decode()
    good = text.startswith(": keep-alive") and text.endswith("data: [DONE]\n\n") and '"error"' not in text
    return "answered" if good else f"{streamed.status_code} {text}"
