"""Clients that go away, and what their leaving has to do to the engine: counted in tokens, never timed."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.support.inference import Inference
from tests.support.waiting import until

from .conftest import MODEL

ENDLESS = {"prompt": "Count:", "max_tokens": 1500, "ignore_eos": True}
# A fifth of what was asked for: an engine that nobody stops passes it, on any machine.
FAR_BEFORE_THE_END = 300


@contextmanager
def posted(url: str, api_key: str, body: Mapping[str, Any], *, late_body: bool = False) -> Iterator[socket.socket]:
    """A request, and its connection with the answer unread; at the end of the block the client leaves.

    With `late_body` the headers have long been read when the body comes.
    """
    data = json.dumps(body).encode()
    address = urlsplit(url)
    head = (
        f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head.encode())
        if late_body:
            time.sleep(0.3)
        connection.sendall(data)
        yield connection


class Engine:
    """What the engine has made since this was created."""

    def __init__(self, vllm: Inference) -> None:
        self._vllm = vllm
        until(lambda: self.running == 0)
        self._generated = vllm.metric(MODEL, "generation_tokens_total")
        self._finished = vllm.metric(MODEL, "request_success_total")

    @property
    def running(self) -> float:
        """Requests in its batch."""
        return self._vllm.metric(MODEL, "num_requests_running")

    @property
    def generated(self) -> float:
        """Tokens."""
        return self._vllm.metric(MODEL, "generation_tokens_total") - self._generated

    @property
    def finished(self) -> float:
        """Requests with an answer to the end."""
        return self._vllm.metric(MODEL, "request_success_total") - self._finished

    def must_stop(self) -> float:
        """Nobody waits for its one answer any more: it ends far before the last token. Returns the tokens made."""
        until(lambda: self.running == 0 or self.generated >= FAR_BEFORE_THE_END)
        assert self.generated < FAR_BEFORE_THE_END
        assert self.running == 0
        assert self.finished == 0
        return self.generated
