"""Says where a signal goes: by a service's settings, and by OpenTelemetry's own variables.

A setting in the file comes before its variable. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from ..settings import ConfigError, Group, base_url

Signal = Literal["traces", "metrics", "logs"]
Protocol = Literal["http/protobuf", "grpc"]
_PROTOCOLS: tuple[Protocol, ...] = ("http/protobuf", "grpc")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~\w-]+\s*=\s*[\x20-\x7e]*", re.ASCII)
_TIMEOUT_S = 10.0


class Receiver(Group):
    """The signal is exported by OTLP once there is an endpoint."""

    endpoint: Annotated[str, AfterValidator(base_url)] | None = Field(
        None, description="URL of an OTLP receiver, such as http://collector:4318; without it nothing is exported"
    )
    protocol: Protocol | None = Field(
        None, description="`http/protobuf` (port 4318 as a rule, the signal's path is appended) or `grpc` (4317)"
    )


class Address(NamedTuple):
    """Where an exporter sends to. endpoint: the whole URL, with the path of HTTP. timeout_s: for one message."""

    endpoint: str
    protocol: Protocol
    timeout_s: float = _TIMEOUT_S


def address(signal: Signal, settings: Receiver, environ: Mapping[str, str]) -> Address | None:
    """Returns None where the signal is not exported. Raises ConfigError for a variable with a bad value.

    OTEL_EXPORTER_OTLP_ENDPOINT alone switches on traces, but neither metrics nor logs (ADR 31). Those are had from
    Prometheus and from stderr already, so a backend would get them twice.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    named = f"OTEL_EXPORTER_OTLP_{signal.upper()}"
    asked_for = _exporter(signal, environ)
    if asked_for is None and signal == "traces":
        asked_for = True
    endpoint, whole = settings.endpoint, False
    if endpoint is None and asked_for is not False:
        of_signal, of_all = f"{named}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
        name = of_all if asked_for and not environ.get(of_signal, "").strip() else of_signal
        endpoint, whole = environ.get(name, "").strip() or None, name == of_signal
        if endpoint is not None and "://" not in endpoint:
            raise ConfigError(f"{name}: it is no URL; write it as http://collector:4318")
    if endpoint is None:
        return None
    protocol = settings.protocol or _protocol(named, environ)
    timeout_s = _TIMEOUT_S
    for name in ("OTEL_EXPORTER_OTLP_TIMEOUT", f"{named}_TIMEOUT"):
        timeout_s = number(environ, name, timeout_s, 1, 600)
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", f"{named}_HEADERS"):  # the exporter reads them
        _check_headers(environ, name)
    if protocol == "http/protobuf" and not whole:  # the variable of one signal has the whole URL, as OpenTelemetry says
        path = f"/v1/{signal}"
        endpoint = endpoint.rstrip("/").removesuffix(path) + path
    return Address(endpoint, protocol, timeout_s)


def number(environ: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    """Returns a variable's number. Raises ConfigError if it is none, or beyond its bounds."""
    text = environ.get(name, "").strip()
    try:
        found = float(text) if text else default
    except ValueError:
        found = math.nan
    if not least <= found <= most:
        raise ConfigError(f"{name}: {text!r} is no number from {least} to {most}")
    return found


def _exporter(signal: Signal, environ: Mapping[str, str]) -> bool | None:
    """Returns what OTEL_…_EXPORTER says of OTLP: True or False, and None if it says nothing."""
    name = f"OTEL_{signal.upper()}_EXPORTER"
    known = ("otlp", "none", "prometheus") if signal == "metrics" else ("otlp", "none")
    chosen = {text.strip() for text in environ.get(name, "").split(",")} - {""}
    for text in sorted(chosen.difference(known)):
        raise ConfigError(f"{name}: {text!r} is not known here; take {' or '.join(map(repr, known))}")
    return "otlp" in chosen if chosen else None


def _protocol(named: str, environ: Mapping[str, str]) -> Protocol:
    for name in (f"{named}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = environ.get(name, "").strip()
        if value:
            for known in _PROTOCOLS:
                if value == known:
                    return known
            raise ConfigError(f"{name}: {value!r} is not known here; take {' or '.join(map(repr, _PROTOCOLS))}")
    return "http/protobuf"


def _check_headers(environ: Mapping[str, str], name: str) -> None:
    """The exporter logs an entry that it does not understand, which may hold a receiver's key."""
    for place, entry in enumerate(environ.get(name, "").split(","), 1):
        if entry.strip() and not _HEADER.fullmatch(entry.strip()):
            raise ConfigError(f"{name}: entry {place} is not of the form name=value")
