"""Connections that serve one request after another."""

from __future__ import annotations

import http.client
import json
import re

import httpx

from tests.data_plane.conftest import Stack, chat
from tests.data_plane.flow.client import CHAT, CONTEXT, Client, body_of
from tests.data_plane.streamed import Streamed
from tests.support.stack import Simulator, create_key, served_by, start_gateway
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until


def test_one_connection_for_many_requests(patient: Stack) -> None:
    url = httpx.URL(patient.gateway.url)
    connection = http.client.HTTPConnection(url.host, url.port or 80, timeout=30)
    headers = {"authorization": f"Bearer {patient.key}", "content-type": "application/json"}
    used = set()
    for kind in ["stream", "whole", "stream", "bad", "stream", "beats", "whole", "models", "stream"]:
        if kind == "beats":
            patient.sim.arm("stall@0")
        body = chat(f"{kind}", max_tokens=7, ignore_eos=True, stream=kind in ("stream", "beats"))
        if kind == "bad":
            body["max_tokens"] = "many"
        if kind == "models":
            connection.request("GET", "/v1/models", headers=headers)
        else:
            connection.request("POST", CHAT, body=json.dumps(body), headers=headers)
        used.add(connection.sock)
        answer = connection.getresponse()
        if kind == "beats":  # the first has brought the head
            patient.sim.wake()
        content = answer.read()
        assert answer.status == (400 if kind == "bad" else 200)
        if kind in ("stream", "beats"):
            got = Streamed(content)
            assert got.done
            assert got.usage is not None
            assert got.usage["completion_tokens"] == 7
            assert (got.comments >= 1) == (kind == "beats")
        elif kind == "whole":
            assert json.loads(content)["usage"]["completion_tokens"] == 7
    connection.close()
    assert len(used) == 1


def test_engines_are_not_connected_to_for_each_request(flat: Simulator) -> None:
    flat.reset()
    flat.configure(rate=0)
    with (
        TcpProxy(flat.url) as proxy,
        start_gateway({"models": [served_by(max_model_len=CONTEXT, upstreams=[proxy.url])]}) as gateway,
    ):
        stack = Stack(flat, gateway, create_key(gateway))
        for number in range(30):
            whole = {"prompt_logprobs": 1} if number % 3 == 2 else {}
            body = chat(f"{number}", max_tokens=5, stream=number % 3 == 0, **whole)
            assert stack.post(json=body).status_code == 200
        assert proxy.connections == 1


def test_requests_one_behind_the_other_are_answered_in_order(patient: Stack) -> None:
    logged = len(patient.gateway.requests)
    with Client(patient) as client:
        client.key = create_key(patient.gateway)
        for number, stream in enumerate((True, False, True)):
            client.send(chat(f"{number}", max_tokens=5, ignore_eos=True, stream=stream), close=number == 2)
        answer = client.read_all()
    heads = [match.start() for match in re.finditer(rb"HTTP/1\.1 200 OK", answer)]
    assert len(heads) == 3
    first, second, third = (answer[a:b] for a, b in zip(heads, [*heads[1:], len(answer)], strict=True))
    for stream in (first, third):
        assert Streamed(body_of(stream)).done
    whole = json.loads(second.partition(b"\r\n\r\n")[2])
    assert whole["usage"]["completion_tokens"] == 5
    until(lambda: len(patient.gateway.requests) == logged + 3)
    assert [entry["stream"] for entry in patient.gateway.requests[-3:]] == [True, False, True]
