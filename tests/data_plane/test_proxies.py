"""Behind a proxy that shares its connections to the gateway: each client gets its own answers, whatever others send."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.data_plane.conftest import Stack, chat
from tests.data_plane.streamed import Streamed
from tests.support.ports import free_port
from tests.support.proxies import PROXIES, ingress_annotations
from tests.support.stack import create_key

TRIES = 18


@pytest.fixture(scope="module", params=list(PROXIES))
def proxy(request: pytest.FixtureRequest, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    with PROXIES[request.param](stack.gateway.url, folder, free_port()) as url:
        yield url


def test_the_chart_asks_for_bodies_that_are_not_held_back() -> None:
    asked = ingress_annotations("nginx.ingress.kubernetes.io")
    assert asked["proxy-request-buffering"] == "off"
    assert asked["proxy-http-version"] == "1.1", "with which connections are kept"


HEADS = {
    "with a key": "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    "Content-Type: application/json\r\n",
    "without a key": "GET /healthz HTTP/1.1\r\nHost: x\r\n",
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_a_body_behind_an_upgrade_is_nobody_elses_answer(stack: Stack, proxy: str, head: str, pause_s: float) -> None:
    """The attacker's body is a whole request for a list of models, which the next client must not get."""
    attackers = create_key(stack.gateway, tenant="attacker", models="nothing")
    inner = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {attackers}\r\n\r\n".encode()
    sent = HEADS[head].format(key=attackers) + "Connection: Upgrade\r\nUpgrade: h2c\r\n"
    sent += f"Content-Length: {len(inner)}\r\n\r\n"
    own = {"authorization": f"Bearer {stack.key}"}
    address = httpx.URL(proxy)
    stack.still_serves()  # and all that was asked before is in the log
    before = len(stack.gateway.requests)
    with httpx.Client(headers=own, timeout=30) as victim:
        assert victim.get(f"{proxy}/v1/models/sim").json()["id"] == "sim"
        for _ in range(TRIES):
            with socket.create_connection((address.host, address.port), timeout=30) as attacker:
                attacker.sendall(sent.encode())
                time.sleep(pause_s)
                attacker.sendall(inner)
                answer = attacker.recv(65536)
                assert answer.startswith(b"HTTP/1.1 400 " if sent.startswith("POST") else b"HTTP/1.1 200 ")
                got = victim.get(f"{proxy}/v1/models/sim")
                assert (got.status_code, got.json().get("id")) == (200, "sim")
    stack.still_serves()
    paths = [request["path"] for request in stack.gateway.requests[before:]]
    assert "/v1/models" not in paths, "what stood in a body was not run"
    assert paths.count("/v1/models/sim") == TRIES + 1


def test_streams_and_whole_answers_pass(stack: Stack, proxy: str) -> None:
    headers = {"authorization": f"Bearer {stack.key}", "connection": "upgrade, http2-settings", "upgrade": "h2c"}
    for _ in range(3):
        whole = httpx.post(f"{proxy}/v1/chat/completions", headers=headers, json=chat(max_tokens=3), timeout=30)
        assert whole.json()["usage"]["completion_tokens"] == 3
        stream = httpx.post(
            f"{proxy}/v1/chat/completions", headers=headers, json=chat(max_tokens=3, stream=True), timeout=30
        )
        assert Streamed(stream.content).done


def test_head_and_what_is_refused_pass(proxy: str) -> None:
    for _ in range(3):
        assert httpx.head(f"{proxy}/healthz", timeout=30).status_code == 200
        assert httpx.head(f"{proxy}/v1/models", timeout=30).status_code == 401
        assert httpx.head(f"{proxy}/v1/chat/completions", timeout=30).status_code == 405
        answer = httpx.post(f"{proxy}/v1/chat%2fcompletions", json={}, timeout=30)
        assert answer.status_code in (401, 404), "a proxy may write the path in its one spelling"
