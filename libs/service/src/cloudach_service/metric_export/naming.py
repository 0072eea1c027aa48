"""Says what metrics and labels are called where they go out by OTLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Naming(NamedTuple):
    """OpenTelemetry's own names of metrics and labels that have one. Others keep those that Prometheus scrapes."""

    metrics: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
