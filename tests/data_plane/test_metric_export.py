"""Metrics by OTLP: a receiver gets what Prometheus scrapes, and no receiver can hold a request up."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.data_plane.conftest import chat
from tests.data_plane.exported import Exported, exported
from tests.support.stack import workers
from tests.support.waiting import until

RENAMED = {
    "gen_ai_server_request_duration_seconds": "gen_ai.server.request.duration",
    "gen_ai_server_time_to_first_token_seconds": "gen_ai.server.time_to_first_token",
    "gen_ai_server_time_per_output_token_seconds": "gen_ai.server.time_per_output_token",
}
OWN = ("cloudach_", "gen_ai_")
CUMULATIVE = 2
SECRETS = ("zanzibar-prompt", "kilimanjaro-user")

Labels = frozenset[tuple[str, str]]


class Series(NamedTuple):
    """kind: `sum`, `gauge` or `histogram`. buckets: of each upper bound, how many were at most so large."""

    kind: str
    value: float
    count: int = 0
    buckets: tuple[tuple[float, float], ...] = ()


def received(message: ExportMetricsServiceRequest) -> dict[tuple[str, Labels], Series]:
    found: dict[tuple[str, Labels], Series] = {}
    for metric in message.resource_metrics[0].scope_metrics[0].metrics:
        kind = str(metric.WhichOneof("data"))
        for point in getattr(metric, kind).data_points:
            labels = frozenset((one.key.replace(".", "_"), one.value.string_value) for one in point.attributes)
            key = (metric.name, labels)
            assert key not in found, "each series once"
            if kind == "histogram":
                up_to = [sum(point.bucket_counts[: place + 1]) for place in range(len(point.bucket_counts))]
                bounds = [*point.explicit_bounds, float("inf")]
                found[key] = Series(kind, point.sum, point.count, tuple(zip(bounds, up_to, strict=True)))
            else:
                found[key] = Series(kind, point.as_double)
    return {key: series for key, series in found.items() if not key[0].startswith(("process_", "python_"))}


def scraped(text: str) -> dict[tuple[str, Labels], Series]:
    found: dict[tuple[str, Labels], Series] = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(OWN):
            continue
        parts: dict[Labels, dict[str, Any]] = {}
        for sample in family.samples:
            labels = frozenset((name, value) for name, value in sample.labels.items() if value and name != "le")
            if family.type != "histogram":
                if not sample.name.endswith("_created"):
                    kind = "sum" if family.type == "counter" else "gauge"
                    found[(sample.name, labels)] = Series(kind, sample.value)
                continue
            part = parts.setdefault(labels, {"buckets": []})
            if sample.name.endswith("_bucket"):
                part["buckets"].append((float(sample.labels["le"]), sample.value))
            else:
                part[sample.name.rsplit("_", 1)[1]] = sample.value
        for labels, part in parts.items():
            name = RENAMED.get(family.name, family.name)
            found[(name, labels)] = Series("histogram", part["sum"], part["count"], tuple(part["buckets"]))
    return {key: one for key, one in found.items() if not key[0].endswith("_created")}


def settled(running: Exported) -> dict[tuple[str, Labels], Series]:
    """Returns what is scraped once a message says the same, but for what counts the messages themselves."""

    def without_exports(found: dict[tuple[str, Labels], Series]) -> dict[tuple[str, Labels], Series]:
        return {key: series for key, series in found.items() if not key[0].startswith("cloudach_metric_exports")}

    def same() -> dict[tuple[str, Labels], Series] | None:
        expected = without_exports(scraped(running.scraped()))
        messages = running.collector.metrics
        return expected if messages and without_exports(received(messages[-1])) == expected else None

    return until(same, "a message that says what is scraped") or {}


def asked(found: dict[tuple[str, Labels], Series]) -> float:
    """Returns how many chats were counted."""
    return sum(
        series.value
        for (name, labels), series in found.items()
        if name == "cloudach_requests_total" and ("route", "chat/completions") in labels
    )


@pytest.mark.parametrize("processes", [1, 3])
def test_a_receiver_gets_what_is_scraped(processes: int) -> None:
    began_ns = time.time_ns()
    with exported("metrics", processes=processes, settings={"interval_s": 1}) as running:
        ready_ns = time.time_ns()
        for _ in range(12):
            assert running.post().status_code == 200
        assert running.post(chat(model="unknown")).status_code == 404
        found = settled(running)
        assert asked(found) == 13
        names = {name for name, _ in found}
        assert {"gen_ai.server.request.duration", "cloudach_time_to_first_token_seconds"} <= names
        messages = running.collector.metrics
        (resource,) = {
            tuple((one.key, one.value.string_value) for one in message.resource_metrics[0].resource.attributes)
            for message in messages
        }
        told = dict(resource)
        assert (told["service.name"], told["service.namespace"]) == ("cloudach-gateway", "cloudach")
        assert told["service.instance.id"], "one, however many processes there are"
        metrics = [one for message in messages for one in message.resource_metrics[0].scope_metrics[0].metrics]
        for metric in metrics:
            data = getattr(metric, str(metric.WhichOneof("data")))
            if metric.HasField("gauge"):
                continue
            assert data.aggregation_temporality == CUMULATIVE
            if metric.HasField("sum"):
                assert data.is_monotonic
        starts = {point.start_time_unix_nano for one in metrics for point in one.sum.data_points}
        starts |= {point.start_time_unix_nano for one in metrics for point in one.histogram.data_points}
        (start,) = starts
        assert began_ns < start < ready_ns, "since the gateway's start, all the time"
        (duration,) = [
            one
            for one in messages[-1].resource_metrics[0].scope_metrics[0].metrics
            if one.name == "gen_ai.server.request.duration"
        ]
        assert duration.unit == "s"
        assert {one.key for one in duration.histogram.data_points[0].attributes} == {
            "gen_ai.operation.name",
            "gen_ai.provider.name",
            "gen_ai.request.model",
        }, "who succeeded has no error.type"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_process_that_is_killed_takes_no_count_with_it(protocol: str) -> None:
    with exported("metrics", protocol=protocol, processes=2, settings={"interval_s": 1}) as running:
        for _ in range(10):
            running.post()
        assert asked(settled(running)) == 10
        os.kill(workers(running.gateway)[0], signal.SIGKILL)
        until(lambda: running.gateway.output.count('"event":"Redis is connected') == 3, "another process")
        for _ in range(5):
            assert running.post().status_code == 200
        assert asked(settled(running)) == 15
        counts = [asked(received(message)) for message in running.collector.metrics]
        assert counts == sorted(counts), "a cumulative sum never falls"


@pytest.mark.parametrize("processes", [1, 2])
def test_the_last_values_are_sent_at_the_end(processes: int) -> None:
    with exported("metrics", processes=processes, settings={"interval_s": 3600}) as running:
        for _ in range(7):
            running.post()
        assert running.collector.metrics == []
        assert running.gateway.stop() == 0
        (message,) = running.collector.metrics
        found = received(message)
        assert asked(found) == 7
        running_now = [series.value for (name, _), series in found.items() if name == "cloudach_running_requests"]
        assert set(running_now) <= {0}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("mode", ["hangs", "refuses", "absent"])
def test_no_receiver_holds_a_request_or_the_end_up(mode: str, protocol: str) -> None:
    env: dict[str, str | None] = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "COLLECTOR",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "1",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    with exported("metrics", mode=mode, protocol=protocol, env=env) as running:

        def failed() -> float:
            found = re.search(r'^cloudach_metric_exports_total\{result="failed"\} (\S+)$', running.scraped(), re.M)
            return float(found[1]) if found else 0

        with httpx.Client(headers={"authorization": f"Bearer {running.key}"}, timeout=30) as client:
            until(lambda: failed() >= 2, "two exports that failed")
            for _ in range(50):
                answer = client.post(f"{running.gateway.base_url}/chat/completions", json=chat(max_tokens=1))
                assert answer.status_code == 200
        assert running.gateway.output.count("the receiver of metrics does not take them") == 1
        assert "opentelemetry" not in running.gateway.output
        assert running.gateway.stop(patience_s=60) == 0
        assert running.collector.metrics == []


def test_a_receiver_that_comes_back_gets_everything() -> None:
    env: dict[str, str | None] = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "COLLECTOR/v1/metrics",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_SERVICE_NAME": "edge",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with exported("metrics", mode="refuses", env=env) as running:
        running.post()
        until(lambda: running.collector.calls >= 2, "refused exports")
        running.post()
        running.collector.mode = "takes"
        assert asked(settled(running)) == 2
        until(lambda: "the receiver of metrics takes them again" in running.gateway.output, "a word of it")
        resource = running.collector.metrics[0].resource_metrics[0].resource
        told = {one.key: one.value.string_value for one in resource.attributes}
        assert (told["service.name"], told["deployment.environment.name"]) == ("edge", "test")


@pytest.mark.parametrize("more", [{}, {"OTEL_METRICS_EXPORTER": "prometheus"}, {"OTEL_SDK_DISABLED": "true"}])
def test_an_endpoint_for_all_sends_traces_alone(more: dict[str, str | None]) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "COLLECTOR", "OTEL_METRIC_EXPORT_INTERVAL": "1000", **more}
    with exported("metrics", env=env) as running:
        assert running.post().status_code == 200
        assert running.gateway.stop() == 0
        assert (running.collector.of_metrics, running.collector.of_logs) == ([], [])
        assert bool(running.collector.bytes) == ("OTEL_SDK_DISABLED" not in more)


def test_nothing_of_a_request_gets_into_a_metric() -> None:
    with exported("metrics", settings={"interval_s": 3600}) as running:
        answer = running.post(chat(SECRETS[0], max_tokens=4, user=SECRETS[1], metadata={"a": SECRETS[1]}))
        refused = running.post(chat(SECRETS[0], model=SECRETS[0]))
        assert (answer.status_code, refused.status_code) == (200, 404)
        assert running.gateway.stop() == 0
        (said,) = running.collector.of_metrics
        for secret in (*SECRETS, running.key, answer.json()["choices"][0]["message"]["content"]):
            assert secret.encode() not in said


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"OTEL_METRICS_EXPORTER": "zipkin"}, "OTEL_METRICS_EXPORTER: 'zipkin'"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "1"}, "OTEL_METRIC_EXPORT_INTERVAL: '1'"),
        ({"OTEL_LOGS_EXPORTER": "console"}, "OTEL_LOGS_EXPORTER: 'console'"),
        (
            {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "collector:4318"},
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: it is no URL",
        ),
        ({"OTEL_EXPORTER_OTLP_METRICS_HEADERS": "api-key"}, "OTEL_EXPORTER_OTLP_METRICS_HEADERS: entry 1"),
    ],
)
def test_a_bad_variable_is_named_at_the_start(env: dict[str, str | None], said: str) -> None:
    whole = {"OTEL_EXPORTER_OTLP_ENDPOINT": "COLLECTOR", "OTEL_METRICS_EXPORTER": "otlp", **env}
    with pytest.raises(Exception, match=re.escape(said)), exported("metrics", env=whole):
        pass
