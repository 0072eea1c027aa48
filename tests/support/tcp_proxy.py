"""A TCP proxy that breaks connections on purpose."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class TcpProxy:
    """Stands in front of `target` (a URL). `resets` says for the first connections, one entry each, after how many
    bytes of the answer they are reset (0: as soon as the request comes in); None and all later ones pass untouched.

    `on_connect` is called with a connection's number, from 0, before anything is passed on.
    """

    def __init__(
        self, target: str, *, resets: Sequence[int | None] = (), on_connect: Callable[[int], None] = lambda _: None
    ) -> None:
        address = urlsplit(target)
        assert address.hostname is not None
        self._target = (address.hostname, address.port or 80)
        self._resets = tuple(resets)
        self._on_connect = on_connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Ends all connections that are open now."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            threading.Thread(target=self._serve, args=(client, number), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        reset_after = self._resets[number] if number < len(self._resets) else None
        server = socket.socket()
        with client, server:
            with self._lock:
                self._open |= {client, server}
            try:
                self._on_connect(number)
                if reset_after == 0:
                    client.recv(65536)
                    _reset(client)
                    return
                server.connect(self._target)
                upward = threading.Thread(target=_pass_on, args=(client, server, None), daemon=True)
                upward.start()
                _pass_on(server, client, reset_after)
                if reset_after is not None:
                    _reset(client)
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                    client.shutdown(socket.SHUT_RDWR)
                upward.join()
            except OSError:
                pass
            finally:
                with self._lock:
                    self._open -= {client, server}


def _pass_on(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    """Until the source ends or `limit` bytes have passed."""
    passed = 0
    try:
        while data := source.recv(65536):
            if limit is not None and passed + len(data) >= limit:
                sink.sendall(data[: limit - passed])
                return
            sink.sendall(data)
            passed += len(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _reset(connection: socket.socket) -> None:
    """The next close() sends RST instead of FIN. The file descriptor is closed here, whoever else reads from it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RD)
    connection.close()
