"""The log level is changed while the gateway runs, in all its processes."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import httpx
import pytest

from tests.data_plane.conftest import chat
from tests.support.ports import free_port
from tests.support.stack import Gateway, create_key, served_by, start_sim, workers
from tests.support.waiting import until

RAISED, LOWERED = "the log level has changed", "the log level is as the settings say"


def lines(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.output.splitlines() if line.startswith("{")]


def said(gateway: Gateway, event: str) -> int:
    return sum(line["event"] == event for line in lines(gateway))


def ready(gateway: Gateway) -> bool:
    try:
        return httpx.get(f"{gateway.url}/readyz", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def ended(metrics_port: int) -> int:
    """Returns how many chats have ended, which may be a moment after their answers."""
    said = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    return sum(
        int(float(line.split()[-1]))
        for line in said.splitlines()
        if line.startswith("cloudach_requests_total{") and "chat/completions" in line
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_requests_are_logged_while_it_is_told_to(processes: int) -> None:
    listen = {"processes": processes, "metrics_port": free_port()}
    with (
        start_sim(rate=500, model="sim") as sim,
        Gateway({"models": [served_by(sim)], "listen": listen, "log_level": "warning"}, ready=False) as gateway,
    ):
        os.kill(gateway.process.pid, signal.SIGUSR1)  # its processes are still starting
        until(lambda: said(gateway, RAISED) == processes)
        until(lambda: ready(gateway))
        key = create_key(gateway)

        def ask() -> str:
            body, headers = chat(max_tokens=2), {"authorization": f"Bearer {key}"}
            answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers, timeout=30)
            assert answer.status_code == 200, answer.text
            return answer.headers["x-request-id"]

        def logged() -> set[str]:
            return {entry["request_id"] for entry in gateway.requests}

        first = ask()
        until(lambda: first in logged())
        os.kill(gateway.process.pid, signal.SIGUSR2)
        until(lambda: said(gateway, LOWERED) == processes)
        silent = {ask() for _ in range(4)}
        until(lambda: ended(listen["metrics_port"]) == 5)
        os.kill(gateway.process.pid, signal.SIGUSR1)
        until(lambda: said(gateway, RAISED) == 2 * processes)
        last = {ask() for _ in range(4)}
        until(lambda: last <= logged())
        assert logged() == {first} | last, f"{silent} were to be silent"
        assert {line["log_level"] for line in lines(gateway) if line["event"] == LOWERED} == {"warning"}


def test_a_process_that_replaces_another_has_its_level() -> None:
    with (
        start_sim(rate=500, model="sim") as sim,
        Gateway({"models": [served_by(sim)], "listen": {"processes": 2}, "log_level": "error"}, ready=False) as gateway,
    ):
        os.kill(gateway.process.pid, signal.SIGUSR1)
        until(lambda: said(gateway, RAISED) == 2)
        serving = workers(gateway)
        assert len(serving) == 2
        os.kill(serving[0], signal.SIGKILL)
        until(lambda: said(gateway, RAISED) == 3)
