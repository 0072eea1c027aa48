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
        self._cut: _Cut | None = None
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

    def cut_after(self, events: int) -> None:
        """Ends the connection that passes the last of so many server-sent events, and no byte more; once."""
        self._cut = _Cut(events)

    def _cut_at(self, data: bytes) -> int | None:
        """Where in an answer's data the connection ends; None: later."""
        at = self._cut.at(data) if self._cut is not None else None
        if at is not None:
            self._cut = None
        return at

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
                _pass_on(server, client, reset_after, self._cut_at)
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


class _Cut:
    """Counts the blank lines that end events, across pieces of data."""

    def __init__(self, events: int) -> None:
        self._left = events
        self._last = b""

    def at(self, data: bytes) -> int | None:
        joined, at = self._last + data, 0
        while (end := joined.find(b"\n\n", at)) >= 0:
            at = end + 2
            self._left -= 1
            if not self._left:
                return at - len(self._last)
        self._last = joined[max(at, len(joined) - 1) :]
        return None


def _pass_on(
    source: socket.socket,
    sink: socket.socket,
    limit: int | None,
    cut_at: Callable[[bytes], int | None] = lambda _: None,
) -> None:
    """Until the source ends, `limit` bytes have passed, or `cut_at` says where in the data."""
    passed = 0
    try:
        while data := source.recv(65536):
            if (at := cut_at(data)) is not None:
                sink.sendall(data[:at])
                return
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
