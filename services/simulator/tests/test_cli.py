"""`cloudach-sim` as a process."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx
import pytest
from cloudach_simulator.__main__ import configuration

from .sim_process import SimProcess

COMMAND = [sys.executable, "-m", "cloudach_simulator"]


def test_it_is_up_soon_serves_and_ends_on_sigterm() -> None:
    begun = time.monotonic()
    with SimProcess("--model", "a", "--model", "b", "--root-path", "/slug/") as sim:
        assert time.monotonic() - begun < 20
        models = httpx.get(f"{sim.url}/slug/v1/models", timeout=20).json()["data"]
        assert [model["id"] for model in models] == ["a", "b"]
        subprocess.run(["/bin/kill", str(sim.pid)], check=True)
        assert sim.wait(20) == 0


def test_it_ends_with_its_parent() -> None:
    parent = subprocess.Popen(["/bin/sleep", "60"])
    try:
        sim = SimProcess("--parent-pid", str(parent.pid)).start()
        assert httpx.get(f"{sim.url}/health", timeout=20).status_code == 200
    finally:
        parent.kill()
        parent.wait()
    assert sim.wait(20) == 0


def test_a_port_in_use_is_told() -> None:
    with SimProcess() as sim:
        port = sim.url.rpartition(":")[2]
        again = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=50, check=False)
    assert again.returncode == 1
    assert "address already in use" in again.stderr


def test_help_explains_faults_and_routes() -> None:
    text = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, timeout=50).stdout
    for word in ("--rate", "--parent-pid", "die@K", "GET  /sim/stats", "x-sim-rate"):
        assert word in text


@pytest.mark.parametrize(
    "arguments", [["--rate", "-1"], ["--burst", "0"], ["--fault", "nonsense"], ["--tool-parser", "x"], ["--port", "x"]]
)
def test_bad_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        configuration(arguments)
    assert "error" in capsys.readouterr().err


def test_the_environment_sets_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIM_API_KEY", raising=False)
    monkeypatch.setenv("VLLM_API_KEY", "from-vllm")
    assert configuration([])[0].api_keys == ("from-vllm",)
    monkeypatch.setenv("SIM_API_KEY", "own")
    assert configuration([])[0].api_keys == ("own",)
    assert configuration(["--api-key", "a\n", "--api-key", "b", "--flat"])[0].api_keys == ("a", "b")
    assert configuration(["--flat"])[0].rate == 0
