"""A connection by hand before an engine that is as fast as it can be."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import httpx

from tests.data_plane.conftest import Stack, chat
from tests.support.stack import Simulator, complaints, create_key, served_by, start_gateway
from tests.support.waiting import until

KEEP_ALIVE = b": keep-alive\n\n"


CHAT = "/v1/chat/completions"
STRICT_S = 2.0  # how long the strict gateway waits for a client that takes nothing
TOKENS = 260_000  # of about 200 bytes each


CONTEXT = 400_000


# A busy machine may be silent for a second.
TIMEOUTS = {"heartbeat_s": 2.0, "first_token_s": 30.0, "between_tokens_s": 30.0, "drain_s": 1.0}


@contextlib.contextmanager
def stack_of(sim: Simulator, **timeouts: float) -> Iterator[Stack]:
    config = {
        "models": [served_by(sim, max_model_len=CONTEXT)],
        "timeouts": {**TIMEOUTS, **timeouts},
        "failover": {"spread_s": 0.05},
    }
    with start_gateway(config) as gateway:
        # One at a time: a request that were still running somewhere would keep the next one out.
        yield Stack(sim, gateway, create_key(gateway, concurrent_streams=1))


def undisturbed(stack: Stack) -> Iterator[Stack]:
    stack.sim.configure(rate=0)
    stack.sim.reset()
    yield stack
    stack.sim.reset()
    until(lambda: stack.sim.stats()["running"] == 0)
    stack.still_serves()
    assert complaints(stack.gateway) == []


class Client:
    """A connection by hand."""

    def __init__(self, stack: Stack, *, window: int = 65536) -> None:
        url = httpx.URL(stack.gateway.url)
        self.key = stack.key
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(60)
        self.socket.connect((url.host, url.port))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(
        self, body: dict[str, Any], *, path: str = CHAT, close: bool = False, part: float = 1.0, expects: bool = False
    ) -> None:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        head += "Expect: 100-continue\r\n" if expects else ""
        request = f"{head}{'Connection: close' if close else 'X-Y: z'}\r\n\r\n".encode() + content
        self.socket.sendall(request[: int(len(request) * part)])

    def read_some(self, size: int = 1) -> bytes:
        return self.socket.recv(size)

    def read_until(self, mark: bytes) -> bytes:
        got = b""
        while mark not in got:
            part = self.socket.recv(65536)
            assert part, got[-300:]
            got += part
        return got

    def read_all(self) -> bytes:
        """Until the connection ends; b"RESET" is put behind what a reset leaves."""
        parts = []
        try:
            while part := self.socket.recv(1_000_000):
                parts.append(part)
        except ConnectionResetError:
            parts.append(b"RESET")
        return b"".join(parts)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def long_stream(text: str = "Go on", **fields: Any) -> dict[str, Any]:
    return chat(text, stream=True, max_tokens=TOKENS, ignore_eos=True, **fields)


def settled(sim: Simulator, *, at_least: int = 1) -> int:
    """Tokens sent when no more have been for a while: the engine waits."""
    sent, since = -1, time.monotonic()
    deadline = since + 90
    while time.monotonic() - since < 0.7:
        now = sim.stats()["sent_tokens_total"]
        if now != sent or now < at_least:
            sent, since = now, time.monotonic()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return sent


def body_of(answer: bytes) -> bytes:
    """Without head and chunks."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    parts, at = [], 0
    while True:
        end = rest.index(b"\r\n", at)
        size = int(rest[at:end], 16)
        if size == 0:
            assert rest[end:] == b"\r\n\r\n"
            return b"".join(parts)
        parts.append(rest[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def anonymous(stream: bytes) -> bytes:
    """Without what is each stream's own."""
    return re.sub(rb'"id":"[^"]*"|"created":\d+', b"", stream)
