"""An engine that says exactly the bytes that a test gives it, however broken they are: a socket and threads.

with RawEngine() as engine, start_gateway({"models": [{"id": "m", "upstreams": [engine.url]}]}) as gateway:
    engine.says(events('{"choices":[5]}', "[DONE]"))
"""

from __future__ import annotations

import re
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.wire import response

Answer = Callable[[bytes], bytes]
"""What an engine says to a request, which is given with its head."""


class RawEngine:
    """`says` sets the answers; the last one is said again and again. Every connection is closed after its answer.

    requests: the bodies of the POSTs that came. Whatever is not POSTed gets a 404 and is not counted.
    """

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque()
        self._lock = threading.Lock()
        self.requests: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def says(self, *answers: bytes | Answer) -> None:
        """Sets what the next requests get, and forgets those that came before."""
        with self._lock:
            self._answers = deque(answer if callable(answer) else _always(answer) for answer in answers)
            self.requests = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            peer.settimeout(60)
            request = _request(peer)
            if request is None:
                return
            if not request.startswith(b"POST"):
                peer.sendall(response("", status=404))
                return
            with self._lock:
                self.requests.append(request.partition(b"\r\n\r\n")[2])
                answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
            peer.sendall(answer(request))
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):  # whoever closes first with something unread resets the other
                pass


def _always(said: bytes) -> Answer:
    return lambda _: said


def _request(peer: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = peer.recv(65536)
        if not part:
            return None
        data += part
    head, _, _ = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    whole = len(head) + 4 + (int(length[1]) if length else 0)
    while len(data) < whole:
        part = peer.recv(65536)
        if not part:
            return None
        data += part
    return data
