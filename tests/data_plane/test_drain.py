"""SIGTERM: not ready, nothing new is let in, streams finish until the deadline, the rest get the error frame."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import httpx
import openai
import pytest

from tests.data_plane.conftest import PATIENT, chat
from tests.data_plane.test_cancel import until
from tests.support.stack import create_key, served_by, start_gateway, start_sim


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
        refused = httpx.post(
            f"{gateway.base_url}/chat/completions", headers={"authorization": f"Bearer {key}"}, json=chat()
        )
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_is_overloaded"
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close", "the retry has to find another gateway"
        for reader in readers:
            reader.join(40)
        assert ended["short"] == "40 tokens"
        assert ended["long"] == "APIError server_is_overloaded"
        assert gateway.process.wait(30) == 0
        until(lambda: sim.stats()["running"] == 0)


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
