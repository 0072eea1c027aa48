"""API versions that came after the tests' API server, as it would serve them: `policy/v1` over its `policy/v1beta1`.

The product speaks versions that every supported Kubernetes has. The one of the tests is 1.20, and has the same kinds
with the same fields under older versions only. This stands before it and changes nothing but the version's name, and
addresses of pods, because an API server refuses EndpointSlices with loopback addresses.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from .kube import Cluster

_HOP = {"connection", "transfer-encoding", "content-length", "host", "accept-encoding"}


@contextlib.contextmanager
def newer_api(
    cluster: Cluster, versions: Mapping[str, str], *, addresses: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Yields the URL of a proxy before the cluster's API server that serves further API versions. Clients authenticate.

    `versions`: maps each further version to a version that old servers have, as `{"policy/v1": "policy/v1beta1"}`. A
    server that knows the further version is asked for that. `addresses`: replaces addresses in such objects, as
    `{"192.0.2.1": "127.0.0.1"}`.
    """
    open_now: set[http.client.HTTPSConnection] = set()
    told = {f'"{real}"'.encode(): f'"{other}"'.encode() for real, other in (addresses or {}).items()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster, dict(versions), told, open_now))
    server.daemon_threads = False  # so that closing waits for them
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        for upstream in list(open_now):  # watches, which would go on
            with contextlib.suppress(OSError, AttributeError):
                upstream.sock.shutdown(socket.SHUT_RDWR)
        server.server_close()


def _handler(
    cluster: Cluster, versions: dict[str, str], told: dict[bytes, bytes], open_now: set[http.client.HTTPSConnection]
) -> type[BaseHTTPRequestHandler]:
    tls = ssl.create_default_context(cafile=str(cluster.home / "pki/ca.crt"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            found = [pair for pair in versions.items() if self.path.startswith(f"/apis/{pair[0]}/")]
            new, old = found[0] if found else ("", "")
            path = self.path.replace(f"/apis/{new}/", f"/apis/{old}/", 1) if found else self.path
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            upstream = http.client.HTTPSConnection(urlsplit(cluster.url).netloc, context=tls, timeout=600)
            open_now.add(upstream)
            try:
                upstream.request(self.command, path, _named(body, new, old), headers)
                with upstream.getresponse() as answer:
                    self.send_response(answer.status)
                    for name, value in answer.getheaders():
                        if name.lower() not in _HOP:
                            self.send_header(name, value)
                    self.send_header("Connection", "close")
                    self.end_headers()
                    # JSON has no newline in it, so each line is whole: an object, or an event of a watch.
                    for line in answer:
                        self.wfile.write(_named(_elsewhere(line, told) if found else line, old, new))
                        self.wfile.flush()
            except (OSError, http.client.HTTPException):
                pass  # either side has gone
            finally:
                self.close_connection = True
                open_now.discard(upstream)
                upstream.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _elsewhere(line: bytes, told: dict[bytes, bytes]) -> bytes:
    for real, other in told.items():
        line = line.replace(real, other)
    return line


def _named(body: bytes, this: str, other: str) -> bytes:
    return body.replace(f'"{this}"'.encode(), f'"{other}"'.encode()) if this else body
