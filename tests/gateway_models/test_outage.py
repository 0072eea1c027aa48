"""The API server goes away and comes back: traffic does not notice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway_models.conftest import Site, settings
from tests.support.kube import Cluster
from tests.support.ports import free_port
from tests.support.stack import create_key, start_gateway, start_sim
from tests.support.waiting import until


@pytest.fixture
def outage(cluster: Cluster) -> Iterator[Cluster]:
    """Whatever a test does to it, it runs afterwards."""
    yield cluster
    if not cluster.running:
        cluster.start()


@pytest.mark.timeout(900)  # the API server starts three times
def test_traffic_goes_on_and_changes_arrive_afterwards(outage: Cluster, kubeconfig: Path, tmp_path: Path) -> None:
    port = free_port()
    cached = settings(kubeconfig, port, cache_file=str(tmp_path / "models.json"), start_wait_s=1)
    with start_sim(rate=200, model="sim") as sim:
        with start_gateway(cached) as gateway:
            site = Site(outage, sim, gateway, create_key(gateway), port)
            site.ready("llama")
            site.apply("asleep", autoscaling={"minReplicas": 0, "maxReplicas": 1})
            site.status("asleep", "Sleeping")
            until(lambda: site.metric("cloudach_models", state="asleep") == 1)
            assert site.metric("cloudach_models_watched") == 1
            assert httpx.get(f"{gateway.url}/readyz").json() == {"status": "ok"}

            outage.stop()
            until(lambda: site.metric("cloudach_models_watched") == 0)
            ready = httpx.get(f"{gateway.url}/readyz")
            assert ready.status_code == 200, "a pod that serves well is not taken out of the service"
            assert "out of reach since" in ready.json()["models"]
            for _ in range(5):
                assert site.code("llama") == (200, None)
            assert site.code("nobody") == (404, "model_not_found")
            assert site.listed() == {"llama", "asleep"}
            heard = site.metric("cloudach_models_heard_timestamp_seconds")
            assert heard is not None

            outage.start()
            site.delete("asleep")
            site.apply("new")
            site.status("new", "Ready", ready=1)
            until(lambda: site.code("new")[0] == 200)
            until(lambda: site.code("asleep") == (404, "model_not_found"))
            until(lambda: site.metric("cloudach_models_watched") == 1)  # a list may come before the watch stands
            # Each watch begins anew after a pause of its own.
            until(lambda: httpx.get(f"{gateway.url}/readyz").json() == {"status": "ok"})
            assert (site.metric("cloudach_models_heard_timestamp_seconds") or 0) > heard

        outage.stop()
        with start_gateway(cached) as gateway:  # starts without an API server
            site = Site(outage, sim, gateway, create_key(gateway), port)
            assert site.code("llama") == (200, None)
            assert site.code("nobody") == (503, "model_not_ready"), "it may be a Model that nobody has told us of"
            outage.start()
            until(lambda: site.code("nobody") == (404, "model_not_found"))
            site.delete("llama")
            site.delete("new")
            until(lambda: not site.listed())
