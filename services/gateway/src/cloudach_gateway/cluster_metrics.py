"""Metrics of the Models of a cluster. Imported only where there is one: elsewhere they would say that it is lost."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

MODELS = Gauge(
    "cloudach_models",
    "Models of the cluster by what the gateway makes of them: ready, starting, no_endpoint, asleep, off, "
    "stuck, refused, deleting",
    ["state"],
    multiprocess_mode="livemax",
)
WATCHED = Gauge(
    "cloudach_models_watched",
    "1 while every watch of Models stands; 0: they are as last known",
    multiprocess_mode="livemin",
)
ENDPOINTS_WATCHED = Gauge(
    "cloudach_endpoints_watched",
    "1 while the pods of all Models are watched; 0: they are as last known, or requests go to Services",
    multiprocess_mode="livemin",
)
HEARD = Gauge(
    "cloudach_models_heard_timestamp_seconds",
    "When the API server last said something of Models; a quiet one says so about once a minute",
    multiprocess_mode="livemin",
)
WAKES = Counter("cloudach_model_wakes", "Wishes to wake a Model", ["model"])
WAITED = Histogram(
    "cloudach_model_wait_seconds",
    "How long requests waited for a Model that was asleep or without a pod, by what came of it: ready, not_ready, left",
    ["model", "outcome"],
    buckets=(0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600),
)
_STATES = ("ready", "starting", "no_endpoint", "asleep", "off", "stuck", "refused", "deleting")


class ClusterMetrics:
    """Turns what `catalog.cluster.News` and `api.waking` report into metrics."""

    def __init__(self) -> None:
        WATCHED.set(0)
        ENDPOINTS_WATCHED.set(0)

    def models(self, states: Mapping[str, int]) -> None:
        for state in _STATES:
            MODELS.labels(state).set(states.get(state, 0))

    def endpoints_watched(self, watched: bool) -> None:
        ENDPOINTS_WATCHED.set(watched)

    def in_touch(self, *, every_watch: bool) -> None:
        HEARD.set_to_current_time()
        WATCHED.set(every_watch)

    def out_of_touch(self) -> None:
        WATCHED.set(0)

    def woke(self, model: str) -> None:
        WAKES.labels(model).inc()

    def waited(self, model: str, seconds: float, outcome: str) -> None:
        WAITED.labels(model, outcome).observe(seconds)
