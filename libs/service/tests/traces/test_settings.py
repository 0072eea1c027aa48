"""Which of a setting and a variable of OpenTelemetry counts, and what a bad one says."""

from __future__ import annotations

import pytest
from cloudach_service.settings import ConfigError
from cloudach_service.traces.sampling import Sampling
from cloudach_service.traces.settings import Address, Exporting, Receiver, Traces, address, exporting

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {**HERE, "OTEL_SDK_DISABLED": "true"},
        {**HERE, "OTEL_SDK_DISABLED": " TRUE "},
        {**HERE, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SERVICE_NAME": "gateway", "OTEL_TRACES_SAMPLER": "always_on"},
    ],
)
def test_without_an_endpoint_or_switched_off_no_trace_is_made(environ: dict[str, str]) -> None:
    assert exporting(Traces(), environ) is None


def test_the_variable_for_traces_is_the_whole_url() -> None:
    environ = {**HERE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other:4318/own/path"}
    assert address(Receiver(), environ) == Address("http://other:4318/own/path", "http/protobuf")
    assert address(Receiver(), {**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) == Address(
        "http://collector:4318", "grpc"
    )
    settings = Receiver(endpoint="http://set:4318", protocol="http/protobuf")
    assert address(settings, environ) == Address("http://set:4318/v1/traces", "http/protobuf")


@pytest.mark.parametrize(
    "environ",
    [
        HERE,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"},
        {**HERE, "OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": ""},
    ],
)
def test_a_variable_is_enough_and_all_is_sampled(environ: dict[str, str]) -> None:
    assert exporting(Traces(), environ) == Exporting(
        "http://collector:4318/v1/traces", "http/protobuf", Sampling(1.0, follows_parent=True)
    )


@pytest.mark.parametrize(
    ("given", "protocol", "used"),
    [
        ("http://collector:4318", None, "http://collector:4318/v1/traces"),
        ("http://collector:4318/", None, "http://collector:4318/v1/traces"),
        ("http://collector:4318/v1/traces", None, "http://collector:4318/v1/traces"),
        ("https://all.example/otlp", "http/protobuf", "https://all.example/otlp/v1/traces"),
        ("http://collector:4317", "grpc", "http://collector:4317"),
    ],
)
def test_a_settings_endpoint_comes_before_the_variables(given: str, protocol: str | None, used: str) -> None:
    settings = Traces.model_validate({"endpoint": given, "protocol": protocol})
    found = exporting(settings, {**HERE, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere:1"})
    assert found is not None
    assert found.endpoint == used


def test_the_variable_for_traces_comes_before_that_for_all() -> None:
    protocols = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    found = exporting(Traces(), {**HERE, **protocols})
    assert found is not None
    assert found.protocol == "grpc"
    found = exporting(Traces(protocol="http/protobuf"), {**HERE, **protocols})
    assert found is not None
    assert found.protocol == "http/protobuf"


@pytest.mark.parametrize(
    ("sampler", "argument", "meant"),
    [
        ("always_on", "", Sampling(1.0, follows_parent=False)),
        ("always_off", "0.5", Sampling(0.0, follows_parent=False)),
        ("traceidratio", "0.25", Sampling(0.25, follows_parent=False)),
        ("traceidratio", "", Sampling(1.0, follows_parent=False)),
        ("parentbased_always_on", "", Sampling(1.0, follows_parent=True)),
        ("parentbased_always_off", "", Sampling(0.0, follows_parent=True)),
        ("parentbased_traceidratio", "0", Sampling(0.0, follows_parent=True)),
    ],
)
def test_the_samplers_of_opentelemetry(sampler: str, argument: str, meant: Sampling) -> None:
    environ = {**HERE, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    found = exporting(Traces(), environ)
    assert found is not None
    assert found.sampling == meant
    found = exporting(Traces(ratio=0.75, follow_client=not meant.follows_parent), environ)
    assert found is not None
    assert found.sampling == Sampling(0.75, follows_parent=not meant.follows_parent)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "udp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-5"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: "):
        exporting(Traces(), {**HERE, name: value})


@pytest.mark.parametrize("argument", ["-0.1", "1.5", "nan", "half", "inf"])
def test_a_bad_ratio_is_named(argument: str) -> None:
    environ = {**HERE, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": argument}
    with pytest.raises(ConfigError, match=r"^OTEL_TRACES_SAMPLER_ARG: "):
        exporting(Traces(), environ)


@pytest.mark.parametrize("value", ["planted-key", "a=b,planted-key", "a=b,=planted-key", "a=planted\nkey"])
def test_a_bad_header_is_named_without_its_value(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^OTEL_EXPORTER_OTLP_HEADERS: entry \d is not") as said:
        exporting(Traces(), {**HERE, "OTEL_EXPORTER_OTLP_HEADERS": value})
    assert "planted" not in str(said.value)


@pytest.mark.parametrize(
    "value", ["", "authorization=Bearer%20x", "Authorization=Basic dXNlcjpw==,x-scope-orgid=1", "a="]
)
def test_good_headers_are_left_to_the_exporter(value: str) -> None:
    assert exporting(Traces(), {**HERE, "OTEL_EXPORTER_OTLP_HEADERS": value}) is not None


def test_the_variables_of_the_batch_processor_size_the_queue() -> None:
    environ = {
        **HERE,
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_SCHEDULE_DELAY": "250",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "64",
    }
    found = exporting(Traces(), environ)
    assert found is not None
    assert (found.queue, found.delay_s, found.spans_at_once) == (100, 0.25, 64)
    found = exporting(Traces(queue=7), {**environ, "OTEL_BSP_SCHEDULE_DELAY": "0"})
    assert found is not None
    assert found.queue == 7
    assert found.delay_s > 0, "the thread does not spin"
