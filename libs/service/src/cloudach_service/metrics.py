"""Prometheus metrics of a service that may run as several processes behind one port.

Set `PROMETHEUS_MULTIPROC_DIR` before the first metric is made when there are several processes: prometheus_client then
keeps the values in files there, which `exposition` adds up.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer, _SilentHandler
from prometheus_client.multiprocess import MultiProcessCollector  # type: ignore[import-untyped,unused-ignore]

_MOST_AT_ONCE = 32
_PATIENCE_S = 10.0


def registry() -> CollectorRegistry:
    """Returns the metrics to expose: this process's own, or those of all processes together."""
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return REGISTRY
    merged = CollectorRegistry()
    MultiProcessCollector(merged)  # type: ignore[no-untyped-call,unused-ignore]
    return merged


def exposition() -> bytes:
    return generate_latest(registry())


def serve(host: str, port: int) -> tuple[WSGIServer, threading.Thread]:
    """Serves /metrics in a thread. Port 0 picks a free one: `server.server_port`. Raises OSError when it is taken."""
    kind = _Server6 if ":" in host else _Server
    server = make_server(host, port, _with_head(make_wsgi_app(registry())), kind, handler_class=_SilentHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return server, thread


class _Server(ThreadingWSGIServer):
    """This is prometheus_client's server with bounds. It answers few clients at a time, and cuts off slow ones."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._since: dict[socket.socket, float] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._since) >= _MOST_AT_ONCE:
            self.shutdown_request(request)
            return
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cuts off the clients that are late. The server calls it twice a second."""
        super().service_actions()
        late = time.monotonic() - _PATIENCE_S
        for request, since in list(self._since.items()):
            if since < late:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)  # its thread sees the end and closes it


class _Server6(_Server):
    address_family = socket.AF_INET6


def _with_head(app: WSGIApplication) -> WSGIApplication:
    """Returns an application that answers HEAD as `app` answers GET, without the body."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "HEAD":
            return app(environ, start_response)
        begun: list[Any] = []
        body = b"".join(app({**environ, "REQUEST_METHOD": "GET"}, lambda *head: begun.extend(head)))  # type: ignore[arg-type]
        start_response(begun[0], [*begun[1], ("Content-Length", str(len(body)))])
        return []

    return answer
