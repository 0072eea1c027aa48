"""Says where a replica's engine exports its spans, and as what service. Pure.

OpenTelemetry's variables of the process say so, which the controller and `local/` set from their settings. vLLM itself
would take any endpoint for one of gRPC, and of a process with OTEL_TRACES_EXPORTER=none export all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from cloudach_service.traces.settings import Receiver, address

SERVICE = "cloudach-engine"
"""Simulators have the same name: `cloudach_simulator.traces`."""

_ENDPOINT, _PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
_DELAY_MS = "1000"


class Exported(NamedTuple):
    """The endpoint is vLLM's argument. `variables` are those of its processes."""

    endpoint: str
    variables: dict[str, str]


def exported(environ: Mapping[str, str], model: str, host: str, replica: str) -> Exported | None:
    """Returns None where nothing is to be exported. Raises ConfigError for a variable with a bad value.

    What the variables already say of the service stands.
    """
    found = address(Receiver(), environ)
    if found is None:
        return None
    ours = {
        "service.namespace": "cloudach",
        "service.instance.id": replica,
        "host.name": host,
        "cloudach.model": model,
    }
    told = [f"{name}={quote(value, safe='')}" for name, value in ours.items()]
    if given := environ.get("OTEL_RESOURCE_ATTRIBUTES", "").strip():
        told.append(given)  # of two with one name the last one counts
    return Exported(
        found.endpoint,
        {
            _ENDPOINT: found.endpoint,
            _PROTOCOL: found.protocol,
            "OTEL_SERVICE_NAME": environ.get("OTEL_SERVICE_NAME", "").strip() or SERVICE,
            "OTEL_RESOURCE_ATTRIBUTES": ",".join(told),
            "OTEL_BSP_SCHEDULE_DELAY": environ.get("OTEL_BSP_SCHEDULE_DELAY", "").strip() or _DELAY_MS,
        },
    )


def makes_spans(engine_kwargs: Mapping[str, object]) -> bool:
    """Tells if vLLM with these arguments can make spans. Without its statistics it would fail at its first one."""
    return not any(engine_kwargs.get(name) for name in ("disable_log_stats", "disable-log-stats"))
