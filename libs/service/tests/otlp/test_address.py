"""Which of a setting and a variable of OpenTelemetry says where metrics and logs go."""

from __future__ import annotations

import pytest
from cloudach_service.log_export import settings as logs
from cloudach_service.metric_export import settings as metrics
from cloudach_service.otlp.address import Address, Receiver, Signal, address
from cloudach_service.settings import ConfigError

ALL = "OTEL_EXPORTER_OTLP_ENDPOINT"
HERE = {ALL: "http://collector:4318"}
SIGNALS: list[Signal] = ["metrics", "logs"]


@pytest.mark.parametrize("signal", SIGNALS)
def test_an_endpoint_for_all_is_not_enough(signal: Signal) -> None:
    name = signal.upper()
    assert address(signal, Receiver(), {}) is None
    assert address(signal, Receiver(), HERE) is None
    assert address(signal, Receiver(), {f"OTEL_{name}_EXPORTER": "otlp"}) is None, "it goes nowhere"
    chosen = {**HERE, f"OTEL_{name}_EXPORTER": " otlp "}
    assert address(signal, Receiver(), chosen) == Address(f"http://collector:4318/v1/{signal}", "http/protobuf")
    assert address(signal, Receiver(), {**chosen, "OTEL_SDK_DISABLED": "true"}) is None


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_variable_of_the_signal_is_the_whole_url(signal: Signal) -> None:
    own = {**HERE, f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT": "http://own:4318/path"}
    assert address(signal, Receiver(), own) == Address("http://own:4318/path", "http/protobuf")
    assert address(signal, Receiver(), {**own, f"OTEL_{signal.upper()}_EXPORTER": "none"}) is None
    set_here = Receiver(endpoint="http://set:4317", protocol="grpc")
    assert address(signal, set_here, {**own, f"OTEL_{signal.upper()}_EXPORTER": "none"}) == Address(
        "http://set:4317", "grpc"
    ), "the file comes first"


@pytest.mark.parametrize(("exporter", "exported"), [("prometheus", False), ("otlp,prometheus", True), ("none", False)])
def test_prometheus_is_there_in_any_case(exporter: str, exported: bool) -> None:
    found = address("metrics", Receiver(), {**HERE, "OTEL_METRICS_EXPORTER": exporter})
    assert (found is not None) == exported


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_METRICS_EXPORTER": "console"}, "OTEL_METRICS_EXPORTER: 'console' is not known here"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "collector"}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: it is no URL"),
        ({"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: 'http/json'"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "0"}, "OTEL_EXPORTER_OTLP_TIMEOUT: '0' is no number from 1 to 600"),
        ({"OTEL_EXPORTER_OTLP_METRICS_HEADERS": "a=b,key"}, "OTEL_EXPORTER_OTLP_METRICS_HEADERS: entry 2"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, "OTEL_METRIC_EXPORT_INTERVAL: 'soon'"),
        ({"OTEL_METRIC_EXPORT_TIMEOUT": "1"}, "OTEL_METRIC_EXPORT_TIMEOUT: '1'"),
    ],
)
def test_a_bad_variable_is_named(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        metrics.exporting(metrics.Metrics(), {**HERE, "OTEL_METRICS_EXPORTER": "otlp", **environ})


def test_intervals_and_timeouts() -> None:
    chosen = {**HERE, "OTEL_METRICS_EXPORTER": "otlp"}
    found = metrics.exporting(metrics.Metrics(), chosen)
    assert found is not None
    assert (found.interval_s, found.to.timeout_s) == (60.0, 10.0)
    own = {"OTEL_METRIC_EXPORT_INTERVAL": "5000", "OTEL_METRIC_EXPORT_TIMEOUT": "3000"}
    found = metrics.exporting(metrics.Metrics(), {**chosen, **own})
    assert found is not None
    assert (found.interval_s, found.to.timeout_s) == (5.0, 3.0)
    found = metrics.exporting(metrics.Metrics(interval_s=7), {**chosen, **own, "OTEL_EXPORTER_OTLP_TIMEOUT": "2"})
    assert found is not None
    assert (found.interval_s, found.to.timeout_s) == (7.0, 2.0)


def test_bounds_of_the_log() -> None:
    chosen = {**HERE, "OTEL_LOGS_EXPORTER": "otlp"}
    found = logs.exporting(logs.Logs(), chosen)
    assert found is not None
    assert found[1:] == (2048, 1.0, 512)
    own = {
        "OTEL_BLRP_MAX_QUEUE_SIZE": "9",
        "OTEL_BLRP_SCHEDULE_DELAY": "250",
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "3",
    }
    found = logs.exporting(logs.Logs(), {**chosen, **own})
    assert found is not None
    assert found[1:] == (9, 0.25, 3)
    found = logs.exporting(logs.Logs(queue=4), {**chosen, **own})
    assert found is not None
    assert found.queue == 4
