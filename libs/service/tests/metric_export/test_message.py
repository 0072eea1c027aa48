"""A message with metrics says what a scrape says, whatever the metrics are."""

from __future__ import annotations

import math
from itertools import pairwise

from cloudach_service.metric_export.message import Times, request
from cloudach_service.metric_export.naming import Naming
from hypothesis import given
from hypothesis import strategies as some
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

TIMES = Times(1_000, 2_000)
_LABEL = some.text(min_size=1, max_size=8)


def exported(registry: CollectorRegistry, naming: Naming = Naming()) -> dict[str, Metric]:  # noqa: B008
    resource = {"service.name": "tests", "process.pid": 7}
    message = ExportMetricsServiceRequest.FromString(
        request(registry.collect(), resource, ("scope", "1.0"), TIMES, naming)
    )
    (of_resource,) = message.resource_metrics
    told = {one.key: one.value.string_value or one.value.int_value for one in of_resource.resource.attributes}
    assert told == resource
    (in_scope,) = of_resource.scope_metrics
    assert (in_scope.scope.name, in_scope.scope.version) == ("scope", "1.0")
    return {metric.name: metric for metric in in_scope.metrics}


@given(some.dictionaries(_LABEL, some.lists(some.floats(0, 1e6), min_size=1, max_size=20), max_size=5))
def test_histograms(observed: dict[str, list[float]]) -> None:
    registry, bounds = CollectorRegistry(), (0.5, 1.0, 250.0)
    histogram = Histogram("it_seconds", "How long", ["who"], buckets=bounds, registry=registry)
    for who, values in observed.items():
        for value in values:
            histogram.labels(who).observe(value)
    found = exported(registry)
    assert set(found) == ({"it_seconds"} if observed else set())
    points = {
        point.attributes[0].value.string_value: point for one in found.values() for point in one.histogram.data_points
    }
    assert set(points) == set(observed)
    for who, values in observed.items():
        point = points[who]
        assert (point.start_time_unix_nano, point.time_unix_nano) == TIMES
        assert tuple(point.explicit_bounds) == bounds
        limits = [-1.0, *bounds, math.inf]
        expected = [sum(low < value <= high for value in values) for low, high in pairwise(limits)]
        assert list(point.bucket_counts) == expected
        assert point.count == len(values)
        assert math.isclose(point.sum, sum(values), rel_tol=1e-9, abs_tol=1e-9)


def test_counters_and_gauges() -> None:
    registry = CollectorRegistry()
    Counter("served", "Requests", ["model", "error"], registry=registry).labels("a", "").inc(3)
    Gauge("used_bytes", "Memory", registry=registry).set(5)
    Gauge("quiet", "None yet", ["model"], registry=registry)
    found = exported(registry)
    assert set(found) == {"served_total", "used_bytes"}, "what has no series is not sent"
    (point,) = found["served_total"].sum.data_points
    assert (point.as_double, point.start_time_unix_nano, point.time_unix_nano) == (3.0, *TIMES)
    assert [(one.key, one.value.string_value) for one in point.attributes] == [("model", "a")]
    assert (found["served_total"].sum.is_monotonic, found["served_total"].sum.aggregation_temporality) == (True, 2)
    assert (found["served_total"].description, found["served_total"].unit) == ("Requests", "")
    (point,) = found["used_bytes"].gauge.data_points
    assert (point.as_double, point.start_time_unix_nano, found["used_bytes"].unit) == (5.0, 0, "By")


def test_names_of_conventions() -> None:
    registry = CollectorRegistry()
    Histogram("gen_ai_it_seconds", "x", ["gen_ai_model", "kind"], registry=registry).labels("m", "k").observe(1)
    found = exported(registry, Naming({"gen_ai_it_seconds": "gen_ai.it"}, {"gen_ai_model": "gen_ai.model"}))
    assert (found["gen_ai.it"].unit, list(found)) == ("s", ["gen_ai.it"])
    (point,) = found["gen_ai.it"].histogram.data_points
    assert {one.key for one in point.attributes} == {"gen_ai.model", "kind"}
