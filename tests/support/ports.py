"""TCP ports for servers that cannot choose one themselves, or that keep theirs while they are away."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from itertools import chain
from pathlib import Path

# The kernel gives ports above these to outgoing connections (ip_local_port_range).
_PORTS = range(10_000, 30_000)
_held: list[int] = []  # the locks' file descriptors


def free_port() -> int:
    """Returns a port that no other call gets while this process lives, in whatever process that call is made.

    No connection takes it either, so it stays free while its server is stopped.
    """
    locks = Path(tempfile.gettempdir(), f"cloudach-test-ports-{os.getuid()}")
    locks.mkdir(exist_ok=True)
    first = os.getpid() * 101 % len(_PORTS)
    for port in chain(_PORTS[first:], _PORTS[:first]):
        lock = os.open(locks / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_free(port):
                raise OSError
        except OSError:
            os.close(lock)
            continue
        _held.append(lock)
        return port
    raise AssertionError("all ports are taken")


def is_free(port: int) -> bool:
    """Says whether nobody listens on the port now. Connections that have just ended do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
