"""The script of `helm test` against a real gateway, Valkey and simulator: it passes where all is well."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.support.helm_test import helm_test
from tests.support.ports import free_port
from tests.support.processes import BIN
from tests.support.stack import Gateway, Simulator, served_by, start_gateway, start_sim


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with start_sim(rate=200) as sim:
        yield sim


@pytest.fixture(scope="module")
def gateway(sim: Simulator) -> Iterator[Gateway]:
    with start_gateway({"models": [served_by(sim)], "listen": {"metrics_port": free_port()}}) as gateway:
        yield gateway


def test_it_streams_trips_a_limit_and_sees_both_in_the_metrics(gateway: Gateway) -> None:
    done = helm_test(gateway)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("streamed", "limit held: Error code: 429", "'refusals': 1.0", "helm test: good"):
        assert said in done.stdout
    command = [BIN / "cloudach", "keys", "list", "--config", gateway.config_file]
    assert "helm" not in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_waits_for_a_model_that_cannot_answer_yet(gateway: Gateway, sim: Simulator) -> None:
    sim.arm("http:503", times=3)
    try:
        assert helm_test(gateway).returncode == 0
    finally:
        sim.reset()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"MODEL": "no-such-model"}, "no-such-model"),
        ({"METRICS_PORT": str(free_port())}, "Connection refused"),
        ({"CLOUDACH_CONFIG": "/nowhere.yaml"}, "cannot read /nowhere.yaml"),
    ],
)
def test_it_fails_with_the_reason(gateway: Gateway, changes: dict[str, str], said: str) -> None:
    done = helm_test(gateway, **changes)
    assert done.returncode != 0
    assert said in done.stderr


def test_it_fails_when_an_answer_breaks_off(gateway: Gateway, sim: Simulator) -> None:
    sim.arm("end@2", times=None)
    try:
        done = helm_test(gateway, TIMEOUT_S="5")
    finally:
        sim.reset()
    assert done.returncode != 0


def test_the_gateway_is_the_same_as_before(gateway: Gateway) -> None:
    """The tests above left nothing that later ones would stumble over."""
    assert httpx.get(f"{gateway.url}/readyz").status_code == 200
