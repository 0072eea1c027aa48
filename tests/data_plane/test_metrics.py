"""/metrics, on a port of its own, agrees with what was served."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.data_plane.conftest import Stack, chat
from tests.support.ports import free_port
from tests.support.stack import create_key, served_by, start_gateway, start_sim
from tests.support.waiting import until


@pytest.mark.parametrize("processes", [1, 2])
def test_the_counters(processes: int) -> None:
    port = free_port()
    listen = {"processes": processes, "metrics_port": port}
    with (
        start_sim(rate=500, model="sim") as sim,
        start_gateway({"models": [served_by(sim)], "listen": listen}) as gateway,
    ):
        stack = Stack(sim, gateway, create_key(gateway))
        for stream in (False, True):
            for _ in range(3):
                assert stack.post(json=chat(max_tokens=5, min_tokens=5, stream=stream)).status_code == 200
        stack.post(json=chat(model="nope"))
        until(lambda: len(gateway.requests) == 7)  # what is counted is counted by then
        assert httpx.get(f"{gateway.url}/metrics").status_code == 404, "not on the port that consumers see"
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        samples = {
            (sample.name, sample.labels.get("kind") or sample.labels.get("outcome") or sample.labels.get("code")): (
                sample.value
            )
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert samples["cloudach_tokens_total", "completion"] == 30
        assert samples["cloudach_generations_total", "finished"] == 6
        assert samples["cloudach_rejections_total", "model_not_found"] == 1
        assert samples["cloudach_time_to_first_token_seconds_count", None] == 6
        assert samples["cloudach_running_requests", None] == 0
