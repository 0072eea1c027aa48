"""SIGTERM: not ready, nothing new is let in, streams finish until the deadline, the rest get the error frame."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.data_plane.conftest import PATIENT, chat
from tests.support.balancer import balancer
from tests.support.ports import free_port
from tests.support.stack import Gateway, create_key, served_by, start_gateway, start_sim
from tests.support.valkey import valkey
from tests.support.waiting import until


@pytest.mark.parametrize("processes", [1, 2])
def test_a_drain(processes: int) -> None:
    config = {"timeouts": {"drain_s": 8.0}, "listen": {"processes": processes}}
    with (
        start_sim(rate=20, model="sim") as sim,
        start_gateway({"models": [served_by(sim)], **config}) as gateway,
        openai.OpenAI(base_url=gateway.base_url, api_key=(key := create_key(gateway)), max_retries=0) as sdk,
    ):
        ended: dict[str, str] = {}

        def read(name: str, tokens: int) -> None:
            try:
                body = {"model": "sim", "messages": [{"role": "user", "content": name}], "max_tokens": tokens}
                stream = sdk.chat.completions.create(**body, stream=True, extra_body={"min_tokens": tokens})
                ended[name] = f"{[chunk.usage for chunk in stream][-1].completion_tokens} tokens"
            except openai.APIError as error:
                ended[name] = f"{type(error).__name__} {error.code}"

        readers = [
            threading.Thread(target=read, args=("short", 40)),
            threading.Thread(target=read, args=("long", 2000)),
        ]
        for reader in readers:
            reader.start()
        until(lambda: sim.stats()["running"] == 2)
        gateway.process.send_signal(signal.SIGTERM)
        # Which process answers is not known: each has to know of it.
        until(lambda: gateway.output.count('"event":"draining"') == processes)
        assert httpx.get(f"{gateway.url}/readyz").status_code == 503
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200

        def ask() -> httpx.Response:
            headers = {"authorization": f"Bearer {key}"}
            answer = httpx.post(f"{gateway.base_url}/chat/completions", headers=headers, json=chat(max_tokens=2))
            assert answer.headers["connection"] == "close", "the next one has to find another gateway"
            return answer

        assert ask().status_code == 200, "it does not know better"
        until(lambda: ask().status_code != 200)
        refused = ask()
        assert refused.status_code == 503, "the deadline is near"
        assert refused.json()["error"]["code"] == "server_is_overloaded"
        assert refused.headers["retry-after"] == "1"
        for reader in readers:
            reader.join(40)
        assert ended["short"] == "40 tokens"
        assert ended["long"] == "APIError server_is_overloaded"
        assert gateway.process.wait(30) == 0
        until(lambda: sim.stats()["running"] == 0)


@contextlib.contextmanager
def kept(gateway: Gateway, number: int = 1) -> Iterator[list[http.client.HTTPConnection]]:
    """Connections on each of which a request has been answered."""
    url = httpx.URL(gateway.url)
    with contextlib.ExitStack() as stack:
        connections = [http.client.HTTPConnection(url.host, url.port, timeout=60) for _ in range(number)]
        for connection in connections:
            stack.callback(connection.close)
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"ok"}'
        yield connections


@pytest.mark.parametrize("processes", [1, 2])
def test_the_next_request_on_a_kept_connection_is_answered_and_is_its_last(processes: int) -> None:
    config = {"timeouts": {"drain_s": 20.0}, "listen": {"processes": processes}}
    with (
        start_sim(model="sim") as sim,
        start_gateway({"models": [served_by(sim)], **config}) as gateway,
        kept(gateway, 8) as connections,
    ):
        key = create_key(gateway)
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: gateway.output.count('"event":"draining"') == processes)
        for number, connection in enumerate(connections):
            body = json.dumps(chat(max_tokens=2, stream=number % 2 == 0))
            connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["connection"] == "close"
            answer.read()
            assert ended(connection)
        assert gateway.process.wait(30) == 0


def ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed it. http.client itself does at such an answer's end."""
    return connection.sock is None or connection.sock.recv(1) == b""


def test_a_stream_that_ends_in_the_drain_leaves_a_connection_for_one_more_request() -> None:
    """Its head has said nothing of an end, so the client takes it that the connection is kept."""
    with (
        start_sim(model="sim") as sim,
        start_gateway({"models": [served_by(sim)], "timeouts": {**PATIENT, "drain_s": 40.0}}) as gateway,
        kept(gateway) as (connection,),
    ):
        headers = {"Authorization": f"Bearer {create_key(gateway)}"}
        sim.arm("stall@2")
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(stream=True, max_tokens=4)), headers)
        stream = connection.getresponse()
        assert stream.status == 200
        assert stream.headers["connection"] is None
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: '"event":"draining"' in gateway.output)
        until(lambda: sim.wake() == 1)  # the engine may not have stalled yet
        assert stream.read().endswith(b"data: [DONE]\n\n")
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(max_tokens=2)), headers)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        answer.read()
        assert gateway.process.wait(30) == 0, "nobody is left"


def test_a_connection_without_a_request_does_not_hold_up_the_drain() -> None:
    config = {"timeouts": {"drain_s": 600.0, "keep_alive_s": 1.0}}
    with (
        start_sim(model="sim") as sim,
        start_gateway({"models": [served_by(sim)], **config}) as gateway,
        kept(gateway, 3) as connections,
    ):
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(40) == 0
        assert all(map(ended, connections)), "each gets its end, none is reset"


def test_all_requests_that_were_sent_at_once_are_answered() -> None:
    """Only the last answer of several says that the connection ends."""
    with (
        start_sim(model="sim") as sim,
        start_gateway({"models": [served_by(sim)], "timeouts": {**PATIENT, "drain_s": 40.0}}) as gateway,
    ):
        body = json.dumps(chat(max_tokens=4)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {create_key(gateway)}\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        sim.arm("stall@2")
        url = httpx.URL(gateway.url)
        with socket.create_connection((url.host, url.port or 80), timeout=60) as client:
            client.sendall(request)
            until(lambda: sim.stats()["running"] == 1)
            gateway.process.send_signal(signal.SIGTERM)
            until(lambda: '"event":"draining"' in gateway.output)
            client.sendall(request * 6)
            time.sleep(0.2)
            sim.wake()
            answers = b""
            while part := client.recv(65536):
                answers += part
        heads = [answer.partition(b"\r\n\r\n")[0] for answer in answers.split(b"HTTP/1.1 ")[1:]]
        assert [head[:6] for head in heads] == [b"200 OK"] * 7
        assert [b"connection: close" in head for head in heads] == [False] * 6 + [True]
        assert gateway.process.wait(30) == 0


@pytest.mark.timeout(900)
def test_gateways_are_replaced_under_clients_that_never_try_again() -> None:
    """The official SDK without retries, through what passes connections on as a Service does: a connection stays with
    its gateway until one side ends it."""
    clients, answers, enough = 12, Counter[str](), threading.Event()
    with start_sim(model="sim", rate=500) as sim, valkey() as redis, contextlib.ExitStack() as stack:
        config = {
            "models": [served_by(sim)],
            "redis": {"url": redis.url},
            "timeouts": {"drain_s": 30.0},
        }
        ports = [free_port(), free_port()]
        gateways = [start_gateway({**config, "listen": {"port": port}}) for port in ports]
        stack.callback(lambda: [gateway.stop() for gateway in gateways])
        key = create_key(gateways[0])
        url = stack.enter_context(balancer(free_port(), ports, mode="tcp"))

        def ask_on(number: int) -> None:
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60) as sdk:
                while not enough.wait(0.03):
                    try:
                        if number % 2:
                            sdk.chat.completions.create(**chat(max_tokens=2))  # type: ignore[call-overload]
                        else:
                            parts = sdk.chat.completions.create(**chat(max_tokens=4), stream=True)  # type: ignore[call-overload]
                            assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == "length"
                        answers["answered"] += 1
                    except (openai.OpenAIError, httpx.HTTPError, AssertionError) as error:
                        answers[repr(error)] += 1

        threads = [threading.Thread(target=ask_on, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            for replaced in range(4):
                before = answers.total()
                until(lambda: answers.total() >= before + 250, within_s=120)  # noqa: B023
                gateway = gateways[replaced % 2]
                assert gateway.stop(patience_s=60) == 0
                gateways[replaced % 2] = start_gateway({**config, "listen": {"port": ports[replaced % 2]}})
        finally:
            enough.set()
            for thread in threads:
                thread.join(60)
    assert set(answers) == {"answered"}, answers
    assert answers["answered"] >= 1000


async def test_a_process_that_has_drained_leaves_nobody_without_an_answer_while_another_goes_on() -> None:
    """The socket is theirs together: what the one has taken up as it ends is answered by it, the rest by the other."""
    config = {"timeouts": {**PATIENT, "drain_s": 60.0}, "listen": {"processes": 2}}
    with start_sim(model="sim") as sim, start_gateway({"models": [served_by(sim)], **config}) as gateway:
        sim.arm("stall@2")
        url, answers, asking = httpx.URL(gateway.url), Counter[str](), True

        async def keep_asking() -> None:
            while asking:
                reader, writer = await asyncio.open_connection(url.host, url.port)
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                try:
                    answers[(await reader.read()).partition(b"\r")[0].decode()] += 1
                except ConnectionError as error:
                    answers[repr(error)] += 1
                writer.close()

        headers = {"authorization": f"Bearer {create_key(gateway)}"}
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("POST", f"{gateway.base_url}/chat/completions", headers=headers, json=chat(stream=True)),
        ):
            before = _children(gateway.process.pid)
            askers = [asyncio.create_task(keep_asking()) for _ in range(16)]
            await asyncio.sleep(0.3)
            gateway.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                while _children(gateway.process.pid) == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            asking = False
            await asyncio.gather(*askers)
            assert gateway.output.count('"event":"drained"') == 1, "the other still has its stream"
        assert set(answers) == {"HTTP/1.1 200 OK"}, answers


def _children(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_to_the_whole_group_is_one_wish(processes: int) -> None:
    """As Ctrl-C in a terminal: every process of the group gets it, and the supervisor passes its own on."""
    config = {"timeouts": {"drain_s": 10.0}, "listen": {"processes": processes}}
    with (
        start_sim(rate=20, model="sim") as sim,
        start_gateway({"models": [served_by(sim)], **config}, own_group=True) as gateway,
    ):
        headers = {"authorization": f"Bearer {create_key(gateway)}"}
        body = chat(stream=True, max_tokens=40, min_tokens=40)
        with httpx.stream("POST", f"{gateway.base_url}/chat/completions", headers=headers, json=body) as answer:
            parts = answer.iter_raw()
            data = next(parts)
            os.killpg(gateway.process.pid, signal.SIGINT)
            data += b"".join(parts)
        assert data.endswith(b"data: [DONE]\n\n")
        assert gateway.process.wait(30) == 0


def test_a_half_sent_request_does_not_hold_up_the_drain() -> None:
    with (
        start_sim(model="sim") as sim,
        start_gateway({"models": [served_by(sim)], "timeouts": {"drain_s": 1}}) as gateway,
    ):
        key = create_key(gateway)
        url = httpx.URL(gateway.url)
        with socket.create_connection((url.host, url.port or 80)) as client:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
            until(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 200)
            gateway.process.send_signal(signal.SIGTERM)
            client.settimeout(30)
            answer = b""
            while part := client.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"server_is_overloaded" in answer
        assert b"x-request-id" in answer
        assert gateway.process.wait(30) == 0


def test_a_gateway_that_is_still_starting_ends_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a Redis that takes connections and says nothing
        redis = {"url": f"redis://127.0.0.1:{silent.getsockname()[1]}", "timeout_s": 1.0}
        models = [{"id": "m", "upstreams": ["http://127.0.0.1:1"]}]
        with start_gateway({"models": models, "redis": redis}, ready=False) as gateway:
            silent.settimeout(60)
            asked, _ = silent.accept()
            with asked:
                gateway.process.send_signal(signal.SIGTERM)
                assert gateway.process.wait(40) == 0


def test_with_nothing_running_it_ends_at_once() -> None:
    with (
        start_sim(model="sim") as sim,
        start_gateway({"models": [served_by(sim)], "timeouts": {"drain_s": 600}}) as gateway,
    ):
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(40) == 0
