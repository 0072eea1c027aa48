"""Where traces go and which are sampled: from a service's settings, and from OpenTelemetry's own variables.

A setting in the file comes before its variable. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import Field

from ..otlp import address as otlp
from ..otlp.address import Address as Address
from ..otlp.address import Protocol as Protocol
from ..otlp.address import Receiver as Receiver
from ..otlp.address import number
from ..settings import ConfigError, Seconds
from .sampling import Sampling

_SHORTEST_DELAY_MS = 10
_SAMPLERS = {  # the sampler's name: its ratio, None if it takes one; whether it follows its parent
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}


class Traces(Receiver):
    """Traces are exported by OTLP once there is an endpoint, here or in OTEL_EXPORTER_OTLP_ENDPOINT."""

    ratio: float | None = Field(
        None, ge=0, le=1, description="part of the traces that is sampled; all, if neither this nor a variable says"
    )
    follow_client: bool | None = Field(
        None, description="a client's `traceparent` says if its trace is sampled; false: the ratio alone decides"
    )
    join_client: bool = Field(
        True, description="a client's `traceparent` names the trace; false: each request begins a trace of its own"
    )
    keep_troubled: bool = Field(
        True, description="requests that fail, fail over or are slow are exported although they are not sampled"
    )
    slow_s: Seconds = Field(10.0, description="seconds to the first token, or to a whole answer, from which it is slow")
    queue: int | None = Field(
        None, ge=1, le=100_000, description="traces that wait for the receiver; more are dropped; 2048 by default"
    )


class Exporting(NamedTuple):
    """How traces are exported. endpoint: as in Address.

    queue: how many traces wait at most. delay_s: how long one waits for others. spans_at_once: a message's size.
    """

    endpoint: str
    protocol: Protocol
    sampling: Sampling
    queue: int = 2048
    delay_s: float = 1.0
    spans_at_once: int = 2048


def exporting(settings: Traces, environ: Mapping[str, str]) -> Exporting | None:
    """Returns None where no trace is made. Raises ConfigError for a variable with a bad value."""
    found = address(settings, environ)
    if found is None:
        return None
    return Exporting(
        found.endpoint,
        found.protocol,
        _sampling(settings, environ),
        settings.queue or int(number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1, 100_000)),
        max(_SHORTEST_DELAY_MS, number(environ, "OTEL_BSP_SCHEDULE_DELAY", 1000, 0, 600_000)) / 1000,
        int(number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 2048, 1, 10_000)),
    )


def address(settings: Receiver, environ: Mapping[str, str]) -> Address | None:
    """Returns None where no trace is made. Raises ConfigError for a variable with a bad value."""
    return otlp.address("traces", settings, environ)


def _sampling(settings: Traces, environ: Mapping[str, str]) -> Sampling:
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip() or "parentbased_always_on"
    if name not in _SAMPLERS:
        raise ConfigError(f"OTEL_TRACES_SAMPLER: {name!r} is not known here; take one of {', '.join(_SAMPLERS)}")
    ratio, follows = _SAMPLERS[name]
    if ratio is None:
        ratio = number(environ, "OTEL_TRACES_SAMPLER_ARG", 1, 0, 1)
    return Sampling(
        ratio if settings.ratio is None else settings.ratio,
        follows if settings.follow_client is None else settings.follow_client,
    )
