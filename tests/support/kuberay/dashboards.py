"""Ray's dashboards of all clusters on paper behind one port; the first part of a path names a service.

    /sim-abcde-head-svc   the RayCluster's own head service
    /sim-head-svc, /sim   that of the RayService, which leads to whichever cluster its selector names

A headless service is a name that leads to a pod. So a connection that was made by it stays with that pod, whatever
the service leads to later, and breaks when the pod goes. Where nobody is, the connection is closed without an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Find = Callable[[str], str]
"""The head pod behind the name of a service; empty: there is none."""
Ask = Callable[[str], dict[str, Any] | None]
"""What the dashboard on that head pod says; None: nobody is there."""
Put = Callable[[str, dict[str, Any]], bool]
"""Gives it another Serve config; false: nobody is there."""

_PATH = "api/serve/applications/"


Locked = Callable[[str, str], bool]
"""Whether the dashboard on that head pod wants another token than this one."""


def dashboards(find: Find, ask: Ask, put: Put, locked: Locked, tokens: set[str]) -> ThreadingHTTPServer:
    """`tokens`: filled with the bearer tokens that come."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.pods: dict[str, str] = {}  # by service: all of them share this host and port, and so a connection

        def _reach(self) -> bool:
            service, _, rest = self.path.lstrip("/").partition("/")
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            tokens.add(token)
            self.pod = self.pods[service] = self.pods.get(service) or find(service)
            if not self.pod or ask(self.pod) is None:
                self.close_connection = True
                return False
            if locked(self.pod, token):
                self._answer(401, {})
                return False
            if rest != _PATH:
                self._answer(404, {})
                return False
            return True

        def do_GET(self) -> None:
            if self._reach():
                self._answer(200, ask(self.pod) or {})

        def do_PUT(self) -> None:
            if self._reach():
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(200 if put(self.pod, body) else 500, {})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    return _Server(("127.0.0.1", 0), Handler)


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Whoever asked is gone."""
