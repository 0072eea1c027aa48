"""The simulator under Ray Serve, several models side by side, and how it all ends. No vLLM needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cloudach_inference.local.processes import descendants
from cloudach_service.processes import die_with_parent
from openai import AuthenticationError, OpenAI

from tests.support.inference import CLOSED, Inference, start_ray_sim
from tests.support.listening import open_to_all
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def sims() -> Iterator[Inference]:
    with start_ray_sim(
        {"id": "sim-one"}, {"id": "Org/Sim.Two", "engine_args": {"rate": 0}, "replicas": 2}
    ) as inference:
        yield inference


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_models_side_by_side_each_under_its_own_route(sims: Inference) -> None:
    assert sims.base_urls["Org/Sim.Two"].endswith("/org-sim-two")
    for model, url in sims.base_urls.items():
        with OpenAI(base_url=f"{url}/v1", api_key=sims.api_key, max_retries=0) as client:
            assert [card.id for card in client.models.list()] == [model]
            stream = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=5, stream=True
            )
            assert [c.choices[0].finish_reason for c in stream if c.choices][-1] == "length"


def test_the_same_lock_as_vllms(sims: Inference) -> None:
    for url in sims.base_urls.values():
        with (
            OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger,
            pytest.raises(AuthenticationError),
        ):
            stranger.models.list()


def test_only_what_the_gateway_uses_is_served_and_only_with_the_key(sims: Inference) -> None:
    good = {"authorization": f"Bearer {sims.api_key}"}
    for url in sims.base_urls.values():
        assert httpx.get(f"{url}/health", timeout=60).status_code == 200
        for method, path in CLOSED:
            assert httpx.request(method, url + path, json={}, timeout=60).status_code == 401, path
            assert httpx.request(method, url + path, json={}, headers=good, timeout=60).status_code == 404, path
        for path in ("/sim/stats", "/metrics", "/v1/models"):
            assert httpx.get(url + path, timeout=60).status_code == 401, path
            assert httpx.get(url + path, headers=good, timeout=60).status_code == 200, path


def test_no_port_is_open_on_other_interfaces(sims: Inference) -> None:
    """Ray's own are meant as well: metrics, gRPC, and the one where Serve's replicas unpickle what comes."""
    assert open_to_all(sims.process.pid) == []


def stats(sims: Inference, url: str) -> dict[str, int]:
    headers = {"authorization": f"Bearer {sims.api_key}"}
    counts: dict[str, int] = httpx.get(f"{url}/sim/stats", headers=headers, timeout=60).json()
    return counts


def test_a_client_that_leaves_is_seen_by_the_engine(sims: Inference) -> None:
    url = sims.base_urls["sim-one"]
    with OpenAI(base_url=f"{url}/v1", api_key=sims.api_key, max_retries=0) as client:
        with client.completions.create(model="sim-one", prompt="Hi", max_tokens=5000, stream=True) as stream:
            next(iter(stream))
            before = stats(sims, url)
            assert before["running"] == 1
        until(lambda: stats(sims, url)["running"] == 0)
        after = stats(sims, url)
        assert after["aborted_total"] == before["aborted_total"] + 1
        assert after["generated_tokens_total"] < before["generated_tokens_total"] + 1000
        client.completions.create(model="sim-one", prompt="Hi", max_tokens=5)
    assert stats(sims, url)["generated_tokens_total"] == after["generated_tokens_total"] + 5


def test_a_killed_starter_takes_all_along(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{{models: [{{id: m, engine: sim}}], state_dir: {tmp_path}}}")
    command = [sys.executable, "-m", "cloudach_inference", "serve", "--config", str(config)]
    starter = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"],
        stdout=subprocess.DEVNULL,
        preexec_fn=die_with_parent(),
    )
    try:
        # In the middle of Ray's start.
        until(lambda: len(descendants(starter.pid)) >= 5)
        pids = descendants(starter.pid)
        os.kill(starter.pid, signal.SIGKILL)
        until(lambda: all(map(gone, pids)))
    finally:
        starter.kill()
        starter.wait()


def test_a_killed_supervisor_takes_its_cluster_along(sims: Inference) -> None:
    """The last test: there are no `sims` after it."""
    pids = descendants(sims.process.pid)
    assert len(pids) > 5
    sims.kill()
    until(lambda: all(map(gone, pids)))
