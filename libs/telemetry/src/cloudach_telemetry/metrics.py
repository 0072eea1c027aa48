"""Prometheus metrics of a service that may run as several processes behind one port.

Set `PROMETHEUS_MULTIPROC_DIR` before the first metric is made when there are several processes: prometheus_client then
keeps the values in files there, which `exposition` adds up.
"""

from __future__ import annotations

import os
import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector  # type: ignore[import-untyped,unused-ignore]


def registry() -> CollectorRegistry:
    """What to expose: this process's metrics, or those of all processes together."""
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return REGISTRY
    merged = CollectorRegistry()
    MultiProcessCollector(merged)  # type: ignore[no-untyped-call,unused-ignore]
    return merged


def exposition() -> bytes:
    return generate_latest(registry())


def serve(host: str, port: int) -> tuple[WSGIServer, threading.Thread]:
    """Serves /metrics in a thread. Port 0 picks a free one: `server.server_port`. Raises OSError when it is taken."""
    return start_http_server(port, addr=host, registry=registry())
