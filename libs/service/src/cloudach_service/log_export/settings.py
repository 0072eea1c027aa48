"""Where log records go: from a service's settings, and from OpenTelemetry's own variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import Field

from ..otlp.address import Address, Receiver, address, number

_SHORTEST_DELAY_MS = 10


class Logs(Receiver):
    """The log is exported by OTLP, beside the lines on stderr, once there is an endpoint for it."""

    queue: int | None = Field(
        None, ge=1, le=100_000, description="log records that wait for the receiver; more are dropped; 2048 by default"
    )


class Exporting(NamedTuple):
    """How log records are exported. queue: how many wait at most. delay_s: how long one waits for others."""

    to: Address
    queue: int
    delay_s: float
    records_at_once: int


def exporting(settings: Logs, environ: Mapping[str, str]) -> Exporting | None:
    """Returns None where no log is exported. Raises ConfigError for a variable with a bad value."""
    to = address("logs", settings, environ)
    if to is None:
        return None
    return Exporting(
        to,
        settings.queue or int(number(environ, "OTEL_BLRP_MAX_QUEUE_SIZE", 2048, 1, 100_000)),
        max(_SHORTEST_DELAY_MS, number(environ, "OTEL_BLRP_SCHEDULE_DELAY", 1000, 0, 600_000)) / 1000,
        int(number(environ, "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", 512, 1, 10_000)),
    )
