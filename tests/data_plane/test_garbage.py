"""A finished request leaves no reference cycle, whatever it was and however it ended: nothing waits for a collector."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.data_plane.conftest import PATIENT, chat
from tests.support.stack import Simulator, create_key, served_by, start_sim
from tests.support.uncollected import UncollectedGateway

REQUESTS = 1000
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


@dataclass
class Bench:
    gateway: UncollectedGateway
    engines: tuple[Simulator, ...]
    key: str
    poor: str  # a key whose limit is used up

    def connect(self) -> Client:
        place = urlsplit(self.gateway.url)
        return Client(socket.create_connection((place.hostname or "", place.port or 0), timeout=30), self)


class Client:
    """One connection, kept open. Written for speed: a thousand requests of each kind."""

    def __init__(self, connection: socket.socket, bench: Bench) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._bench = bench
        self._input = connection.makefile("rb")
        self.last = b""

    def send(self, method: str, path: str, body: bytes = b"", key: str | None = None, **headers: str) -> None:
        given = {"host": "gateway", "authorization": f"Bearer {key or self._bench.key}"}
        if body or method == "POST":
            given |= {"content-type": "application/json", "content-length": str(len(body))}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self._connection.sendall(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)

    def answer(self) -> int:
        """Its status, once it is whole. The last chunk of a stream stays in `last`."""
        status = int(self._input.readline().split()[1])
        length: int | None = None
        while (line := self._input.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if length is not None:
            self._input.read(length)
            return status
        while size := int(self._input.readline(), 16):
            self.last = self._input.read(size + 2)
        self._input.readline()
        return status

    def read_until(self, sign: bytes) -> None:
        while sign not in self._input.readline():
            pass

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._input.close()
        self._connection.close()


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with start_sim(flat=True, model=["sim"], embedding_model="vectors") as first, start_sim(flat=True) as second:
        config = {
            "models": [
                served_by(first, second),
                {"id": "vectors", "upstreams": [first.url]},
                {"id": "plain", "upstreams": [first.url], "upstream_model": "sim", "dialect": "openai"},
                {"id": "down", "upstreams": ["http://127.0.0.1:1"]},
            ],
            "timeouts": {**PATIENT, "retries": 0},
            "failover": {"spread_s": 0.001},
            "max_body_bytes": 200_000,
            "limits": {"window_s": 3600.0},
            "log_level": "error",
        }
        with UncollectedGateway(config) as gateway:
            found = Bench(gateway, (first, second), create_key(gateway), create_key(gateway, requests_per_minute=1))
            client = found.connect()
            client.send("POST", "/v1/chat/completions", said(), key=found.poor)
            client.answer()
            client.close()
            yield found


def said(**fields: Any) -> bytes:
    return json.dumps(chat("Hello", **{"max_tokens": 3, **fields})).encode()


def completion(**fields: Any) -> bytes:
    return json.dumps({"model": "sim", "prompt": "Hello", "max_tokens": 3, **fields}).encode()


CHATS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
UNKNOWN = "sk-cld-tests-aaaaaaaaaa-" + "a" * 40

Ask = tuple[str, str, bytes, dict[str, str]]
ANSWERED: dict[str, tuple[int, Ask]] = {
    "stream": (200, ("POST", CHATS, said(stream=True), {})),
    "stream with its usage": (200, ("POST", CHATS, said(stream=True, stream_options={"include_usage": True}), {})),
    "stream of several choices": (200, ("POST", CHATS, said(stream=True, n=3), {})),
    "stream of a completion": (200, ("POST", COMPLETIONS, completion(stream=True, prompt=["a", "b"]), {})),
    "stream of tool calls": (200, ("POST", CHATS, said(stream=True, tools=TOOLS, max_tokens=30), {})),
    "stream in OpenAI's dialect": (200, ("POST", CHATS, said(stream=True, model="plain"), {})),
    "stream that reports": (200, ("POST", CHATS, said(stream=True), {"x_cloudach_failover": "report"})),
    "gathered": (200, ("POST", CHATS, said(), {})),
    "gathered completion": (200, ("POST", COMPLETIONS, completion(n=2), {})),
    "whole": (200, ("POST", CHATS, said(tools=TOOLS, max_tokens=30), {})),
    "embeddings": (200, ("POST", "/v1/embeddings", b'{"model": "vectors", "input": "x"}', {})),
    "large body": (200, ("POST", CHATS, said(metadata={"note": "x" * 100_000}), {})),
    "compressed body": (200, ("POST", CHATS, gzip.compress(said()), {"content_encoding": "gzip"})),
    "models": (200, ("GET", "/v1/models", b"", {})),
    "a model": (200, ("GET", "/v1/models/sim", b"", {})),
    "health": (200, ("GET", "/healthz", b"", {})),
    "readiness": (200, ("GET", "/readyz", b"", {})),
    "bad field": (400, ("POST", CHATS, said(n="x"), {})),
    "bad JSON": (400, ("POST", CHATS, b"{", {})),
    "bad encoding": (415, ("POST", CHATS, said(), {"content_encoding": "br"})),
    "bad type": (415, ("POST", CHATS, said(), {"content_type": "text/plain"})),
    "malformed key": (401, ("POST", CHATS, said(), {"key": "x"})),
    "unknown key": (401, ("POST", CHATS, said(), {"key": UNKNOWN})),
    "used up": (429, ("POST", CHATS, said(), {"key": "POOR"})),
    "unknown model": (404, ("POST", CHATS, said(model="nope"), {})),
    "unknown route": (404, ("GET", "/v1/nope", b"", {})),
    "wrong method": (405, ("GET", CHATS, b"", {})),
    "too large": (413, ("POST", CHATS, said(metadata={"note": "x" * 300_000}), {})),
    "no engine": (502, ("POST", CHATS, said(stream=True, model="down"), {})),
    "no engine, gathered": (502, ("POST", CHATS, said(model="down"), {})),
    "engine refuses": (400, ("POST", CHATS, said(stream=True, sim_fault="http:400:json"), {})),
    "engine fails": (502, ("POST", CHATS, said(stream=True, sim_fault="http:500:json"), {})),
    "engine fails, whole": (502, ("POST", CHATS, said(tools=TOOLS, sim_fault="http:500:json"), {})),
    "error in the stream": (200, ("POST", CHATS, said(stream=True, sim_fault="error@1"), {})),
    "error while gathered": (502, ("POST", CHATS, said(sim_fault="error@1"), {"x_cloudach_failover": "off"})),
    "cut, not continued": (
        200,
        ("POST", CHATS, said(stream=True, sim_fault="close@1"), {"x_cloudach_failover": "off"}),
    ),
}


def ask(client: Client, bench: Bench, what: Ask) -> None:
    method, path, body, headers = what
    key = headers.get("key")
    rest = {name: value for name, value in headers.items() if name != "key"}
    client.send(method, path, body, key=bench.poor if key == "POOR" else key, **rest)


def left(bench: Bench, run: Callable[[int], None]) -> dict[str, int]:
    """What a thousand requests leave for a collector. The first few make what stays."""
    run(20)
    settle(bench)
    bench.gateway.collect()
    run(REQUESTS)
    settle(bench)
    return bench.gateway.collect()


def settle(bench: Bench) -> None:
    """Until what follows an answer is done too: settlements, and connections that close."""
    client = bench.connect()
    time.sleep(0.3)  # an engine's connection may be waited for that long
    client.send("GET", "/healthz")
    assert client.answer() == 200
    client.close()
    time.sleep(0.1)


def nothing(found: dict[str, int]) -> None:
    count = sum(found.values())
    assert count < REQUESTS // 10, f"{count} objects: {found}"


@pytest.mark.parametrize("kind", ANSWERED)
def test_an_answer_leaves_nothing(bench: Bench, kind: str) -> None:
    status, what = ANSWERED[kind]
    client = bench.connect()

    def run(times: int) -> None:
        for _ in range(times):
            ask(client, bench, what)
            assert client.answer() == status

    found = left(bench, run)
    client.close()
    nothing(found)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "gathered"])
def test_an_answer_that_another_engine_ends_leaves_nothing(bench: Bench, stream: bool) -> None:
    """After 12 tokens either engine breaks off; the other one is asked for less than that."""
    client = bench.connect()
    body = said(stream=stream, max_tokens=16, ignore_eos=True)
    what = ("POST", CHATS, body, {"x_cloudach_failover": "report"})

    def run(times: int) -> None:
        for _ in range(times):
            for engine in bench.engines:
                engine.arm("close@12")
            ask(client, bench, what)
            assert client.answer() == 200
            assert not stream or b"[DONE]" in client.last, client.last

    for engine in bench.engines:
        engine.reset()
    found = left(bench, run)
    client.close()
    assert sum(engine.stats()["requests_total"] for engine in bench.engines) == 2 * (20 + REQUESTS)
    nothing(found)


STALLS = {"max_tokens": 50, "ignore_eos": True, "sim_fault": "stall@5"}
LEFT: dict[str, tuple[bytes, bytes, dict[str, str]]] = {
    "stream": (b"data:", said(stream=True, **STALLS), {}),
    "stream before its first token": (b"", said(stream=True, sim_fault="hang"), {}),
    "gathered": (b"", said(**STALLS), {}),
    "whole": (b"", said(tools=TOOLS, sim_fault="hang"), {}),
    "body": (b"", b"{", {"content_length": "1000"}),
    "large body": (b"", b"{", {"content_length": "100000"}),
}


@pytest.mark.parametrize("kind", LEFT)
def test_a_client_that_goes_away_leaves_nothing(bench: Bench, kind: str) -> None:
    sign, body, headers = LEFT[kind]

    def run(times: int) -> None:
        for _ in range(times):
            client = bench.connect()
            client.send("POST", CHATS, body, **headers)
            if sign:
                client.read_until(sign)
            else:
                time.sleep(0.002)  # most have been given to the engine then
            client.close()

    nothing(left(bench, run))
