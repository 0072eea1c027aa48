"""Writes what Prometheus scrapes as an ExportMetricsServiceRequest of opentelemetry-proto 1. Pure.

The mapping is that of OpenTelemetry's specification ("Prometheus and OpenMetrics Compatibility"), which Prometheus and
the Collector follow in the other direction. Names stay as they are scraped, unless the service names others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from ..otlp import protobuf
from .naming import Naming

_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_UNITS = {"seconds": "s", "bytes": "By"}


class Times(NamedTuple):
    """Nanoseconds since 1970. started_ns: when all counters were 0."""

    started_ns: int
    now_ns: int


def request(
    families: Iterable[Family], resource: protobuf.Attributes, scope: tuple[str, str], times: Times, naming: Naming
) -> bytes:
    """Returns the whole message. scope: name and version of what counted."""
    message = ExportMetricsServiceRequest()
    of_resource = message.resource_metrics.add()
    of_resource.resource.MergeFromString(b"".join(protobuf.attributes(b"\x0a", resource)))
    in_scope = of_resource.scope_metrics.add()
    in_scope.scope.name, in_scope.scope.version = scope
    in_scope.metrics.extend(metric for family in families for metric in _metrics(family, times, naming))
    written: bytes = message.SerializeToString()
    return written


def _metrics(family: Family, times: Times, naming: Naming) -> list[Metric]:
    """Returns one metric, or none for a family without series."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    metric = Metric(name=naming.metrics.get(name, name), description=family.documentation, unit=_unit(family.name))
    if family.type == "counter":
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = _CUMULATIVE
        _numbers(metric.sum, [one for one in family.samples if one.name == name], times.started_ns, times, naming)
        filled = bool(metric.sum.data_points)
    elif family.type == "histogram":
        metric.histogram.aggregation_temporality = _CUMULATIVE
        _histograms(metric.histogram, family, times, naming)
        filled = bool(metric.histogram.data_points)
    else:
        _numbers(metric.gauge, [one for one in family.samples if one.name == name], 0, times, naming)
        filled = bool(metric.gauge.data_points)
    return [metric] if filled else []


def _unit(name: str) -> str:
    return _UNITS.get(name.rsplit("_", 1)[-1], "")


def _numbers(data: Any, samples: Iterable[Sample], started_ns: int, times: Times, naming: Naming) -> None:
    for sample in samples:
        point = data.data_points.add(
            start_time_unix_nano=started_ns, time_unix_nano=times.now_ns, as_double=sample.value
        )
        _label(point, sample.labels, naming)


def _histograms(data: Any, family: Family, times: Times, naming: Naming) -> None:
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for sample in family.samples:
        series = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        if sample.name == f"{family.name}_bucket":
            buckets.setdefault(series, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name == f"{family.name}_sum":
            sums[series] = sample.value
    for series, found in buckets.items():
        bounds, up_to = zip(*sorted(found), strict=True)
        point = data.data_points.add(
            start_time_unix_nano=times.started_ns,
            time_unix_nano=times.now_ns,
            count=round(up_to[-1]),
            sum=sums.get(series, 0.0),
            bucket_counts=[round(upper - lower) for lower, upper in zip((0.0, *up_to), up_to, strict=False)],
            explicit_bounds=bounds[:-1],  # the last one is infinite
        )
        _label(point, dict(series), naming)


def _label(point: Any, labels: Mapping[str, str], naming: Naming) -> None:
    """An empty label is none, as for Prometheus."""
    for name, value in labels.items():
        if value:
            point.attributes.add(key=naming.labels.get(name, name)).value.string_value = value
