"""Where metrics go and how often: from a service's settings, and from OpenTelemetry's own variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import Field

from ..otlp.address import Address, Receiver, address, number

_INTERVAL_MS = 60_000
_TIMEOUT_MS = 30_000


class Metrics(Receiver):
    """Metrics are exported by OTLP, beside what Prometheus scrapes, once there is an endpoint for them."""

    interval_s: float | None = Field(
        None, ge=1, le=3600, description="seconds from one export to the next; 60, if neither this nor a variable says"
    )


class Exporting(NamedTuple):
    """How metrics are exported. interval_s: from the beginning of one export to that of the next."""

    to: Address
    interval_s: float


def exporting(settings: Metrics, environ: Mapping[str, str]) -> Exporting | None:
    """Returns None where no metric is exported. Raises ConfigError for a variable with a bad value."""
    to = address("metrics", settings, environ)
    if to is None:
        return None
    interval_ms = number(environ, "OTEL_METRIC_EXPORT_INTERVAL", _INTERVAL_MS, 1000, 3_600_000)
    timeout_ms = number(environ, "OTEL_METRIC_EXPORT_TIMEOUT", _TIMEOUT_MS, 1000, 600_000)
    return Exporting(
        to._replace(timeout_s=min(to.timeout_s, timeout_ms / 1000)), settings.interval_s or interval_ms / 1000
    )
