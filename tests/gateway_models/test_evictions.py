"""A drain takes both pods of a Model, one after the other, under streams: none breaks, and there is always an endpoint.

Kubernetes' own controller watches over the budget that ours makes. There are no kubelets: an evicted pod is gone at
once, and what it had begun runs on in its engine, as Ray leaves it for `drainSeconds`.

    EVICTED_STREAM_S=48     seconds that a stream takes, instead of 3
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway_models.conftest import NAMESPACE, account_at, seen_by_gateways
from tests.gateway_models.platform import Platform, crowd, platform
from tests.support.accounts import ACCOUNT as CONTROLLER
from tests.support.kube import api_server
from tests.support.release import Helm, prepare
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)

STREAM_S = float(os.environ.get("EVICTED_STREAM_S", "3"))
TOKENS = 12  # as the crowd asks for

SLICES = f"/apis/discovery.k8s.io/v1beta1/namespaces/{NAMESPACE}/endpointslices"
WHICH = {"labelSelector": "kubernetes.io/service-name=llama-serve-svc"}


@pytest.fixture
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("evictions")
    # The stand-in for KubeRay writes the slices, with the ports of its engines.
    with api_server(controllers=True, without=("endpoint", "endpointslice")) as cluster:
        prepare(cluster)
        with Helm(cluster, NAMESPACE) as helm, seen_by_gateways(cluster, policy="v1beta1") as url:
            helm.install()
            accounts = account_at(cluster, url, folder), account_at(cluster, url, folder, CONTROLLER)
            with platform(cluster, accounts[0], folder, engines=8, controller=accounts[1]) as running:
                yield running


def test_both_pods_are_evicted_under_streams(it: Platform) -> None:
    it.paper.ready_after_s = 1.0
    it.apply("llama", replicas=2)
    until(lambda: len(it.endpoints("llama")) == 2)
    until(lambda: it.site.code("llama")[0] == 200)
    old, pods = set(it.endpoints("llama")), it.paper.pods(it.paper.active("llama"))[1:]
    for sim in it.sims:
        sim.configure(rate=TOKENS / STREAM_S)
    with httpx.Client(base_url=it.cluster.url, verify=it.cluster.tls, timeout=60, trust_env=False) as api:
        first = api.get(SLICES, params=WHICH).json()
        with crowd(it.site, "llama", 20, keep=False) as clients:
            until(lambda: drained(api, pods))
            until(lambda: len(it.endpoints("llama")) == 2 and not old & set(it.endpoints("llama")))
            before = {port: it.asked(port) for port in old}
            answered = [client.answered for client in clients]
            until(
                lambda: all(now.answered > then for now, then in zip(clients, answered, strict=True)),
                within_s=60 + 4 * STREAM_S,
            )
        assert [problem for client in clients for problem in client.failures] == []
        assert {port: it.asked(port) for port in old} == before
        counts = list(ready_pods(api, first))
    assert min(counts) >= 1, counts
    assert 1 in counts


def drained(api: httpx.Client, pods: list[str]) -> bool:
    """Asks for all that are left, as `kubectl drain` does again and again. Whether each was granted."""
    pods[:] = [pod for pod in pods if not evict(api, pod)]
    return not pods


def evict(api: httpx.Client, pod: str) -> bool:
    """Whether it was granted."""
    body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    answer = api.post(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", json=body)
    assert answer.status_code in (201, 429), answer.text
    return answer.status_code == 201


def ready_pods(api: httpx.Client, first: dict[str, Any]) -> Iterator[int]:
    """How many the serve Service had, from that list on. The stand-in for KubeRay has a slice for each port."""
    since = {"watch": "true", "resourceVersion": first["metadata"]["resourceVersion"], "timeoutSeconds": "2"}
    told = api.get(SLICES, params={**WHICH, **since})
    ready: dict[str, int] = {}
    for one in [*first["items"], *(json.loads(line)["object"] for line in told.text.splitlines())]:
        ready[one["metadata"]["name"]] = sum(each["conditions"]["ready"] for each in one["endpoints"] or ())
        if len(ready) >= len(first["items"]):
            yield sum(ready.values())
