"""/metrics, on a port of its own, agrees with what was served."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.data_plane.conftest import PATIENT, Stack, chat
from tests.support.observed import counters
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


def test_what_a_request_went_through() -> None:
    """One stream breaks off, its client leaves one, one ends well, and an engine refuses a request once."""
    port = free_port()
    with (
        start_sim(rate=500, model="sim") as sim,
        start_gateway(
            {
                "models": [served_by(sim)],
                "listen": {"metrics_port": port},
                "timeouts": PATIENT,
                "failover": {"enabled": False},
            }
        ) as gateway,
    ):
        stack = Stack(sim, gateway, create_key(gateway))
        assert stack.post(json=chat(max_tokens=5, min_tokens=5, stream=True)).status_code == 200
        sim.arm("end@3")
        broken = stack.post(json=chat(max_tokens=9, min_tokens=9, stream=True))
        assert '"error"' in broken.text
        sim.arm("stall@3")
        with httpx.stream(
            "POST",
            f"{gateway.base_url}/chat/completions",
            json=chat(max_tokens=9, min_tokens=9, stream=True),
            headers={"authorization": f"Bearer {stack.key}"},
            timeout=30,
        ) as left:
            next(left.iter_lines())
        until(lambda: len(gateway.requests) == 3)
        log = {entry["outcome"]: entry for entry in gateway.requests}
        sim.arm("http:503")
        assert stack.post("/v1/completions", json={"model": "sim", "prompt": "Hi", "max_tokens": 1}).status_code == 200
        until(lambda: len(gateway.requests) == 4)
        waited_s = gateway.requests[-1]["duration_ms"] / 1000
        assert set(log) == {"finished", "failed", "cancelled"}
        seen = counters(port)

    assert seen["cloudach_truncated_streams_total", "sim"] == 1
    assert seen["cloudach_redis_round_trip_seconds_count",] == 4
    assert (
        0 < seen["cloudach_redis_round_trip_seconds_sum",] < sum(one["duration_ms"] for one in gateway.requests) / 1000
    )
    turns = {name[1]: count for name, count in seen.items() if name[0] == "cloudach_turn_seconds_count"}
    assert turns == {"pause": 1}
    assert 0 < seen["cloudach_turn_seconds_sum", "pause"] <= waited_s
    duration = "gen_ai_server_request_duration_seconds"
    of_sim = ("chat", "vllm", "sim")
    assert seen[f"{duration}_count", "", *of_sim] == 1
    assert seen[f"{duration}_count", "cancelled", *of_sim] == 1
    assert seen[f"{duration}_count", log["failed"]["code"], *of_sim] == 1
    assert seen[f"{duration}_sum", "", *of_sim] == pytest.approx(log["finished"]["duration_ms"] / 1000, abs=1e-3)
    first = seen["gen_ai_server_time_to_first_token_seconds_sum", *of_sim]
    assert first == pytest.approx(log["finished"]["ttft_ms"] / 1000, abs=1e-3)
    per_token = "gen_ai_server_time_per_output_token_seconds"
    assert seen[f"{per_token}_count", *of_sim] == 1
    (attempt,) = log["finished"]["attempts"]
    streamed_s = (attempt["duration_ms"] - attempt["first_token_ms"]) / 1000
    assert seen[f"{per_token}_sum", *of_sim] == pytest.approx(streamed_s / 4, abs=2e-3)
