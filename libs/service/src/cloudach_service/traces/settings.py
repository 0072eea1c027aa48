"""Where traces go and which are sampled: from a service's settings, and from OpenTelemetry's own variables.

A setting in the file comes before its variable. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from ..settings import ConfigError, Group, Seconds, base_url
from .sampling import Sampling

Protocol = Literal["http/protobuf", "grpc"]
_PROTOCOLS: tuple[Protocol, ...] = ("http/protobuf", "grpc")
_PATH = "/v1/traces"
_OF_TRACES, _OF_ALL = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
_SHORTEST_DELAY_MS = 10
_HEADER = re.compile(r"[!#$%&'*+.^_`|~\w-]+\s*=\s*[\x20-\x7e]*", re.ASCII)
_SAMPLERS = {  # the sampler's name: its ratio, None if it takes one; whether it follows its parent
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}


class Receiver(Group):
    """Traces are exported by OTLP once there is an endpoint, here or in OTEL_EXPORTER_OTLP_ENDPOINT."""

    endpoint: Annotated[str, AfterValidator(base_url)] | None = Field(
        None, description="URL of an OTLP receiver, such as http://collector:4318; without it no trace is made"
    )
    protocol: Protocol | None = Field(
        None, description="`http/protobuf` (port 4318 as a rule, /v1/traces is appended) or `grpc` (4317)"
    )


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


class Address(NamedTuple):
    """Where an exporter sends to. endpoint: the whole URL, with the path of HTTP."""

    endpoint: str
    protocol: Protocol


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
        settings.queue or int(_number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1, 100_000)),
        max(_SHORTEST_DELAY_MS, _number(environ, "OTEL_BSP_SCHEDULE_DELAY", 1000, 0, 600_000)) / 1000,
        int(_number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 2048, 1, 10_000)),
    )


def address(settings: Receiver, environ: Mapping[str, str]) -> Address | None:
    """Returns None where no trace is made. Raises ConfigError for a variable with a bad value."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    endpoint = settings.endpoint or _named_endpoint(environ)
    if endpoint is None:
        return None
    protocol = settings.protocol or _protocol(environ)
    for name in ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):  # the exporter reads them
        _number(environ, name, 10, 1, 600)
    for name in ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
        _check_headers(environ, name)
    whole = protocol == "grpc" or (settings.endpoint is None and environ.get(_OF_TRACES, "").strip())
    return Address(endpoint if whole else endpoint.rstrip("/").removesuffix(_PATH) + _PATH, protocol)


def _named_endpoint(environ: Mapping[str, str]) -> str | None:
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter not in ("otlp", "none"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER: {exporter!r} is not known here; take 'otlp' or 'none'")
    named = next((name for name in (_OF_TRACES, _OF_ALL) if environ.get(name, "").strip()), None)
    if exporter == "none" or named is None:
        return None
    endpoint = environ[named].strip()
    if "://" not in endpoint:
        raise ConfigError(f"{named}: it is no URL; write it as http://collector:4318")
    return endpoint


def _protocol(environ: Mapping[str, str]) -> Protocol:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = environ.get(name, "").strip()
        if value:
            for known in _PROTOCOLS:
                if value == known:
                    return known
            raise ConfigError(f"{name}: {value!r} is not known here; take {' or '.join(map(repr, _PROTOCOLS))}")
    return "http/protobuf"


def _sampling(settings: Traces, environ: Mapping[str, str]) -> Sampling:
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip() or "parentbased_always_on"
    if name not in _SAMPLERS:
        raise ConfigError(f"OTEL_TRACES_SAMPLER: {name!r} is not known here; take one of {', '.join(_SAMPLERS)}")
    ratio, follows = _SAMPLERS[name]
    if ratio is None:
        ratio = _number(environ, "OTEL_TRACES_SAMPLER_ARG", 1, 0, 1)
    return Sampling(
        ratio if settings.ratio is None else settings.ratio,
        follows if settings.follow_client is None else settings.follow_client,
    )


def _number(environ: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = environ.get(name, "").strip()
    try:
        number = float(text) if text else default
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise ConfigError(f"{name}: {text!r} is no number from {least} to {most}")
    return number


def _check_headers(environ: Mapping[str, str], name: str) -> None:
    """The exporter logs an entry that it does not understand, which may hold a receiver's key."""
    for number, entry in enumerate(environ.get(name, "").split(","), 1):
        if entry.strip() and not _HEADER.fullmatch(entry.strip()):
            raise ConfigError(f"{name}: entry {number} is not of the form name=value")
