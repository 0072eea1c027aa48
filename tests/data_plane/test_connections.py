"""Clients that only hold connections: each of them ends, there are only so many, and health is answered meanwhile."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.data_plane.conftest import Stack, chat
from tests.support.ports import free_port
from tests.support.processes import open_files
from tests.support.stack import complaints, create_key, served_by, start_gateway
from tests.support.waiting import until

MOST = 40


def connect(stack: Stack) -> socket.socket:
    url = httpx.URL(stack.gateway.url)
    return socket.create_connection((url.host, url.port), timeout=30)


def idle(stack: Stack) -> bytes:
    return b""


def half_a_head(stack: Stack) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: x\r\nX: "


def half_a_body(stack: Stack) -> bytes:
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100000\r\n\r\n"
    return head.format(stack.key).encode()


def half_a_body_without_a_key(stack: Stack) -> bytes:
    return half_a_body(stack).replace(b"Bearer", b"Basic")


def a_body_that_nobody_wants(stack: Stack) -> bytes:
    return half_a_body(stack).replace(b"chat", b"chats")


@pytest.mark.parametrize("drips", [False, True])
def test_who_only_waits_is_sent_away(stack: Stack, drips: bool) -> None:
    kinds: list[Callable[[Stack], bytes]] = [
        idle,
        half_a_head,
        half_a_body,
        half_a_body_without_a_key,
        a_body_that_nobody_wants,
    ]
    timeouts = {"keep_alive_s": 1.0, "head_s": 1.0, "body_s": 1.0}
    with start_gateway({"models": [served_by(stack.sim)], "timeouts": timeouts}) as gateway:
        own = Stack(stack.sim, gateway, create_key(gateway))
        own.still_serves()
        files = open_files(gateway)
        held = []
        for kind in kinds:
            for _ in range(10):
                client = connect(own)
                client.sendall(kind(own))
                client.setblocking(False)
                held.append((kind, client))
        answers: dict[str, list[int]] = {kind.__name__: [] for kind in kinds}
        deadline = time.monotonic() + 60
        while held:
            assert time.monotonic() < deadline, [kind.__name__ for kind, _ in held]
            for kind, client in list(held):
                if drips and kind is not idle:
                    with contextlib.suppress(OSError):
                        client.send(b" ")
                try:
                    got = client.recv(65536)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    got = b""
                if got:
                    answers[kind.__name__].append(int(got[9:12]))
                else:
                    held.remove((kind, client))
                    client.close()
            time.sleep(0.05)
        assert answers == {
            "idle": [],
            "half_a_head": [408] * 10,
            "half_a_body": [408] * 10,
            "half_a_body_without_a_key": [401] * 10,
            "a_body_that_nobody_wants": [404] * 10,
        }
        until(lambda: open_files(gateway) <= files)
        own.still_serves()
        assert complaints(gateway) == []


def samples(port: int) -> dict[str, float]:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    return {one.name: one.value for family in text_string_to_metric_families(text) for one in family.samples}


@pytest.mark.parametrize("processes", [1, 2])
def test_more_connections_than_there_is_room_for(stack: Stack, processes: int) -> None:
    port = free_port()
    listen = {"max_connections": MOST, "metrics_port": port, "processes": processes}
    with start_gateway({"models": [served_by(stack.sim)], "listen": listen}) as gateway, contextlib.ExitStack() as held:
        own = Stack(stack.sim, gateway, create_key(gateway))
        body = json.dumps(chat(max_tokens=2)).encode()
        client = held.enter_context(connect(own))

        def served() -> bool:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {own.key}\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            return client.recv(65536).startswith(b"HTTP/1.1 200 ")

        assert served()
        others = []
        for _ in range(processes * 150):
            with contextlib.suppress(ConnectionError):  # where it is told that early
                others.append(held.enter_context(connect(own)))
        until(lambda: samples(port)["cloudach_connections_refused_total"] > 0)
        assert samples(port)["cloudach_connections"] > MOST
        assert served(), "who is in stays in"
        lines = [line for line in gateway.output.splitlines() if "too many connections" in line]
        assert 1 <= len(lines) <= processes
        assert json.loads(lines[0])["most"] == MOST
        for one in others[-processes * 50 :]:  # the spare ones are for who asks soon, and leaves
            one.close()

        def healthy() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{gateway.url}/healthz", timeout=30).status_code == 200
            return False

        until(healthy)
        for one in others:
            one.close()
        until(lambda: samples(port)["cloudach_connections"] == 1)
        assert served()
        own.still_serves()
        assert complaints(gateway) == []
