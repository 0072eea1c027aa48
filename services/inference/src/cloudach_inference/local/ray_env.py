"""This environment makes a Ray cluster ours alone: its folder, ports, token and key. Pure but for free_ports."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cloudach_service.traces.settings import Address

# Ports that Serve hands to replicas, one after another from the first; below Linux's range for outgoing connections.
_REPLICA_PORTS = range(20000, 32000, 200)


@dataclass(frozen=True, slots=True)
class Ports:
    http: int
    fallback: int  # Serve's own proxy, behind HAProxy
    haproxy_stats: int
    haproxy_metrics: int
    autoscaler_metrics: int
    dashboard_metrics: int
    replicas: int  # the first of 200


def free_ports(count: int) -> list[int]:
    """Holds all ports until the last one is known, because the kernel may give a port again that was let go."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def choose_ports(http: int, *, seed: int) -> Ports:
    """Returns ports that are free at this moment. `seed` (the process id) spreads neighbours over the replica ports."""
    own_http, fallback, haproxy_stats, haproxy_metrics, autoscaler_metrics, dashboard_metrics = free_ports(6)
    return Ports(
        http=http or own_http,
        fallback=fallback,
        haproxy_stats=haproxy_stats,
        haproxy_metrics=haproxy_metrics,
        autoscaler_metrics=autoscaler_metrics,
        dashboard_metrics=dashboard_metrics,
        replicas=_REPLICA_PORTS[seed % len(_REPLICA_PORTS)],
    )


def environment(
    base: Mapping[str, str],
    *,
    folder: Path,
    ports: Ports,
    token: str,
    api_key: str | None,
    stream_limit_s: int,
    traces: Address | None = None,
) -> dict[str, str]:
    """Returns variables for every process of the cluster. They have to be set before Ray is imported.

    traces: where engines export their spans.
    """
    inherited = {name: value for name, value in base.items() if name not in ("RAY_ADDRESS", "VLLM_API_KEY")}
    ingress = folder / "h"
    ours = {
        # vLLM, gloo and Python leave files here; the folder goes when we end.
        "TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_COLOR_PREFIX": "0",
        "NO_COLOR": "1",
        # Else Ray puts the machine's address in the place of 127.0.0.1, and opens metrics and gRPC on all interfaces.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "AUTOSCALER_METRIC_PORT": str(ports.autoscaler_metrics),
        "DASHBOARD_METRIC_PORT": str(ports.dashboard_metrics),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.replicas + 199),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(ingress / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(ingress / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(ingress / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(ingress),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(ingress / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(stream_limit_s),
        "VLLM_NO_USAGE_STATS": "1",
    }
    # Not in a runtime_env: Ray writes that into its logs.
    lock = {"VLLM_API_KEY": api_key} if api_key else {}
    return inherited | ours | lock | (_of_traces(traces) if traces is not None else {})


def _of_traces(traces: Address) -> dict[str, str]:
    return {
        "OTEL_TRACES_EXPORTER": "otlp",  # the settings go before a variable that switches it off
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": traces.endpoint,
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": traces.protocol,
    }


def haproxy_wrapper(binary: str, *, loopback: bool = True) -> str:
    """Repairs what is wrong in Ray's template and no setting changes.

    Two statistics ports are open on all interfaces. `loopback` closes them, except in pods, where they are scraped.
    With splice-request HAProxy 2.8.25 does not notice that a client leaves if the client's body came after its headers.
    The engine works on to the last token then, and HAProxy burns a core meanwhile.
    """
    narrow = "-e 's/^( *bind )\\*?:/\\1127.0.0.1:/' " if loopback else ""
    return f"""#!/bin/sh
for argument; do
  case "$argument" in
    *.cfg) sed -i -E {narrow}-e '/^ *option splice-request *$/d' "$argument" ;;
  esac
done
exec '{binary}' "$@"
"""
