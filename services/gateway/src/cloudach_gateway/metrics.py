"""The gateway's Prometheus metrics. Labels are bounded: models come from the catalog, never from a request's text."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from cloudach_service.metric_export.naming import Naming
from prometheus_client import Counter, Gauge, Histogram

from .errors import ModelNotReady
from .record import OPERATIONS, RequestRecord

Metric = TypeVar("Metric", Counter, Histogram)

REQUESTS = Counter("cloudach_requests", "Requests by route, model and status", ["route", "model", "status"])
TOKENS = Counter("cloudach_tokens", "Tokens billed; cached ones are among the prompt's", ["model", "kind"])
OUTCOMES = Counter("cloudach_generations", "Generations by how they ended", ["model", "outcome"])
REJECTIONS = Counter("cloudach_rejections", "Requests that no engine has begun with, by the refusal's code", ["code"])
ATTEMPTS = Counter("cloudach_attempts", "Attempts at engines, by how they ended", ["model", "end"])
RETRIES = Counter("cloudach_upstream_retries", "Further attempts before the first byte", ["model"])
FAILOVERS = Counter("cloudach_failovers", "Answers that another engine went on with", ["model"])
FAILOVER_DURATION = Histogram(
    "cloudach_failover_duration_seconds",
    "From an engine's break to the first event of the one that goes on",
    ["model"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
TRUNCATED = Counter("cloudach_truncated_streams", "Streams that ended with an error after their first token", ["model"])
TURN = Histogram(
    "cloudach_turn_seconds",
    "Each wait before an engine, by what was waited for",
    ["kind"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900),
)
REDIS_ROUND_TRIP = Histogram(
    "cloudach_redis_round_trip_seconds",
    "How long Redis took to admit a request",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
SLOW_PATH = Counter(
    "cloudach_slow_path_streams", "Answers whose chunks had to be parsed one by one, by the reason", ["model", "reason"]
)
LOST = Counter("cloudach_lost_requests", "Requests of killed gateways that were billed as last noted")
TRACES_EXPORTED = Counter(
    "cloudach_traces_exported", "Traces that the receiver has taken; a settlement counts as one of its own"
)
TRACES_DROPPED = Counter("cloudach_traces_dropped", "Traces that were lost before they were exported", ["reason"])
METRIC_EXPORTS = Counter("cloudach_metric_exports", "Exports of metrics by OTLP, by their result", ["result"])
LOGS_EXPORTED = Counter("cloudach_logs_exported", "Log records that the receiver has taken")
LOGS_DROPPED = Counter("cloudach_logs_dropped", "Log records that were lost before they were exported", ["reason"])
HEARTBEATS = Counter("cloudach_heartbeats", "Keep-alive comments sent into silent streams")
RUNNING = Gauge("cloudach_running_requests", "Generations running now", multiprocess_mode="livesum")
CONNECTIONS = Gauge("cloudach_connections", "Open connections of clients", multiprocess_mode="livesum")
CONNECTIONS_REFUSED = Counter(
    "cloudach_connections_refused", "Connections that were not served because listen.max_connections were open"
)
DRAINING = Gauge("cloudach_draining", "1 after SIGTERM", multiprocess_mode="livemax")
DEGRADED = Gauge("cloudach_redis_degraded", "1 while Redis cannot be reached", multiprocess_mode="livemax")
EVICTS = Gauge(
    "cloudach_redis_evicts",
    "1 while Redis may evict keys and usage: its maxmemory-policy is not noeviction",
    multiprocess_mode="livemax",
)
TTFT = Histogram(
    "cloudach_time_to_first_token_seconds",
    "From the request's arrival to the first token",
    ["model"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
DURATION = Histogram(
    "cloudach_request_duration_seconds",
    "From the request's arrival to the last byte",
    ["route"],
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900),
)

# These have names and buckets of OpenTelemetry (GenAI conventions v0.1.0), as its mapping to Prometheus writes them.
GEN_AI_DURATION = Histogram(
    "gen_ai_server_request_duration_seconds",
    "From a generation's arrival to its last byte",
    ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"],
    buckets=(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
GEN_AI_TTFT = Histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "From the arrival of a generation that succeeded to its first token",
    ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"],
    buckets=(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
)
GEN_AI_TIME_PER_TOKEN = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "The mean time between two tokens of a generation that succeeded",
    ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"],
    buckets=(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5),
)

OTEL_NAMES = Naming(
    {
        "gen_ai_server_request_duration_seconds": "gen_ai.server.request.duration",
        "gen_ai_server_time_to_first_token_seconds": "gen_ai.server.time_to_first_token",
        "gen_ai_server_time_per_output_token_seconds": "gen_ai.server.time_per_output_token",
    },
    {
        "gen_ai_operation_name": "gen_ai.operation.name",
        "gen_ai_provider_name": "gen_ai.provider.name",
        "gen_ai_request_model": "gen_ai.request.model",
        "error_type": "error.type",
    },
)
"""Where metrics go out by OTLP, these have the names that the conventions give them."""


@lru_cache(maxsize=4096)
def _of(metric: Metric, *labels: str) -> Metric:
    """The metric with these labels; prometheus_client's own lookup takes a lock and several times as long."""
    return metric.labels(*labels)


def observe(record: RequestRecord, duration_s: float) -> None:
    """Counts a request that has ended."""
    model = record.model or ""
    _of(REQUESTS, record.route, model, str(record.status or 499)).inc()
    _of(DURATION, record.route).observe(duration_s)
    if record.heartbeats:
        HEARTBEATS.inc(record.heartbeats)
    for attempt in record.attempts:
        _of(ATTEMPTS, model, attempt.end).inc()
    if record.retries:
        _of(RETRIES, model).inc(len(record.retries))
    for failover in record.failovers:
        _of(FAILOVERS, model).inc()
        FAILOVER_DURATION.labels(model).observe(failover.took_s)
    for reason in record.slow_path:
        _of(SLOW_PATH, model, reason).inc()
    for wait in record.waits:
        _of(TURN, wait.kind).observe(wait.ended_at - wait.began_at)
    if record.redis_s is not None:
        REDIS_ROUND_TRIP.observe(record.redis_s)
    waited_in_vain = record.error is not None and record.error.code == ModelNotReady.code
    if record.outcome is None or waited_in_vain:
        if record.error is not None:
            _of(REJECTIONS, record.error.code or record.error.type).inc()
        return
    _of(OUTCOMES, model, record.outcome).inc()
    _of(TOKENS, model, "prompt").inc(record.prompt_tokens)
    _of(TOKENS, model, "completion").inc(record.completion_tokens)
    _of(TOKENS, model, "cached").inc(record.cached_tokens)
    if record.ttft_s is not None:
        _of(TTFT, model).observe(record.ttft_s)
        if record.stream and record.outcome == "failed":
            _of(TRUNCATED, model).inc()
    if record.attempts:
        _observe_generation(record, model, duration_s)


def _observe_generation(record: RequestRecord, model: str, duration_s: float) -> None:
    last = record.attempts[-1]
    labels = OPERATIONS.get(record.route, record.route), last.provider, model
    error = record.error
    failed = "" if error is None else type(error).code or error.type  # an engine's own code may be any text
    if record.outcome == "cancelled":
        failed = failed or "cancelled"
    _of(GEN_AI_DURATION, *labels, failed).observe(duration_s)
    if record.outcome != "finished" or record.ttft_s is None:
        return
    _of(GEN_AI_TTFT, *labels).observe(record.ttft_s)
    if record.completion_tokens > 1 and last.ended_at is not None:
        streamed_s = max(0.0, last.ended_at - record.started - record.ttft_s)
        _of(GEN_AI_TIME_PER_TOKEN, *labels).observe(streamed_s / (record.completion_tokens - 1))
