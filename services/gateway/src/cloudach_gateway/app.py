"""The gateway's composition root: settings in, ASGI application out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from cloudach_service.traces import settings as traces
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import metrics
from .admission.admission import Admission
from .admission.salts import Salts
from .api.endpoints import ENDPOINTS
from .api.health import BareHealthEndpoint, HealthEndpoint
from .api.models import ModelsEndpoint
from .api.pipeline import Pipeline
from .api.services import Services
from .api.unknown import unknown_path_message
from .api.waking import Waking
from .catalog import Catalog, of_file
from .client.envelope import Envelope
from .client.intake import Intake
from .errors import GatewayError, InvalidRequest, MethodNotAllowed, UnknownUrl
from .lifecycle import Lifecycle
from .proxy.placing.fleet import Engines
from .proxy.relay import Relay
from .settings import Settings
from .tracing import export

if TYPE_CHECKING:
    from .catalog.cluster import ClusterModels


HEALTH_PATHS = frozenset(("/health", "/healthz", "/readyz"))
"""Answered even where there is no room for another connection."""


_TOLD_TO_BROWSERS = (
    "x-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    *(f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
)


_MODEL_NAMES = b"/v1/models/"
_LAST_TRACES_S = 3.0


def build(settings: Settings, *, redis_url: str, lifecycle: Lifecycle) -> ASGIApp:
    """Returns the application, which connects when its lifespan starts.

    It is ready once it has reached Redis and knows its models. Without Redis it would know no key.
    Raises ConfigError if the settings name a cluster that cannot be asked, or a variable of OpenTelemetry is bad.
    """
    catalog = Catalog(of_file(settings.models))
    engines = Engines(
        connect_s=settings.timeouts.connect_s, directory=catalog, largest_answer=settings.max_answer_bytes
    )
    admission = Admission(
        redis_url,
        settings.redis,
        settings.limits,
        records_keep_s=settings.usage.keep_days * 86400,
        on_degraded=metrics.DEGRADED.set,
        on_lost=metrics.LOST.inc,
        on_evicts=metrics.EVICTS.set,
    )
    salts = Salts(admission.store, settings.cache_salt_secret)
    cluster, waking = _cluster(settings, catalog, engines) if settings.kubernetes.enabled else (None, None)
    exporting = traces.exporting(settings.telemetry.traces, os.environ)
    tracing = None if exporting is None else export.start(settings.telemetry.traces, exporting)
    tracer = None if tracing is None else tracing.tracer
    services = Services(
        settings=settings,
        catalog=catalog,
        admission=admission,
        relay=Relay(engines, settings.timeouts, settings.failover),
        lifecycle=lifecycle,
        intake=Intake(settings),
        salts=salts,
        waking=waking,
        tracer=tracer,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if tracing is not None:
                stack.push_async_callback(asyncio.to_thread, tracing.queue.close, _LAST_TRACES_S)
            engines.start()
            stack.callback(engines.stop)
            salts.start()
            await admission.start()
            stack.push_async_callback(admission.close)
            stack.push_async_callback(salts.close)
            needs: list[Callable[[], Awaitable[object]]] = [admission.reached.wait, salts.known.wait]
            if cluster is not None:
                await cluster.start()
                stack.push_async_callback(cluster.stop)
                needs.append(cluster.known)
            stack.enter_context(_opening(lifecycle, needs))
            yield

    asking = {endpoint.path: Pipeline(services, endpoint) for endpoint in ENDPOINTS}
    models = ModelsEndpoint(services, engines.context_lengths)
    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.router.routes += [
        *(Route(path, pipeline, methods=["POST"]) for path, pipeline in asking.items()),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{model:path}", models, methods=["GET"]),
        Route("/health", BareHealthEndpoint(lifecycle), methods=["GET"]),
        Route("/healthz", HealthEndpoint(lifecycle, readiness=False), methods=["GET"]),
        Route("/readyz", HealthEndpoint(lifecycle, readiness=True, notes=_notes(admission, cluster)), methods=["GET"]),
    ]
    app.add_exception_handler(HTTPException, _raise_as_gateway_error)
    app.add_middleware(Envelope, tracer=tracer)
    served = _short_way(
        app, {endpoint.path: Envelope(asking[endpoint.path], endpoint.dialect, tracer) for endpoint in ENDPOINTS}
    )
    return _for_browsers(served, settings.cors.origins) if settings.cors.origins else served


def _cluster(settings: Settings, catalog: Catalog, engines: Engines) -> tuple[ClusterModels, Waking]:
    """Imported here: a gateway without a cluster pays nothing for it, and shows none of its metrics."""
    from .catalog.cluster import ClusterModels, find_access
    from .cluster_metrics import ClusterMetrics

    asked, told = settings.kubernetes, ClusterMetrics()
    cluster = ClusterModels(asked, find_access(asked), catalog, told, engines.left)
    waking = Waking(
        cluster,
        catalog,
        settings.timeouts,
        told,
        stream_s=asked.wake_wait_s,
        whole_s=asked.wake_wait_whole_s,
        lapse_s=asked.endpoint_wait_s,
    )
    return cluster, waking


@contextmanager
def _opening(lifecycle: Lifecycle, needs: Iterable[Callable[[], Awaitable[object]]]) -> Iterator[None]:
    """Ready once there is all that is needed."""

    async def open_then() -> None:
        await asyncio.gather(*(need() for need in needs))
        lifecycle.open()

    opening = asyncio.create_task(open_then(), name="wait to be ready")
    try:
        yield
    finally:
        opening.cancel()


def _notes(admission: Admission, cluster: ClusterModels | None) -> Callable[[], dict[str, str]]:
    def notes() -> dict[str, str]:
        said = {}
        if not admission.reached.is_set():
            said["redis"] = "not reached yet"
        elif (policy := admission.eviction.policy) is not None:
            said["redis"] = f"may evict keys and usage: its maxmemory-policy is {policy}, set it to noeviction"
        if cluster is not None and (since := cluster.out_of_touch_since) is not None:
            said["models"] = f"as last known: the API server is out of reach since {since:%Y-%m-%dT%H:%M:%SZ}"
        if cluster is not None and (note := cluster.endpoints_note) is not None:
            said["endpoints"] = note
        return said

    return notes


def _for_browsers(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Lets pages of these origins read all answers, errors too. Keys come in a header, so CORS needs no credentials."""
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=_TOLD_TO_BROWSERS
    )


def _short_way(app: ASGIApp, generation: dict[str, Envelope]) -> ASGIApp:
    """Generation requests pass FastAPI's middleware and routing by, which would cost a sixth of a short one.

    No route but a model's name may be written with percent signs: a proxy's rules for a path must not be passed by with
    another spelling of it. Such a path stays as it was sent, and there is no route for it.
    """

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"%" in scope["raw_path"] and not scope["raw_path"].startswith(_MODEL_NAMES):
            scope["path"] = scope["raw_path"].decode("ascii")
        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = generation.get(scope["path"])
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await app(scope, receive, send)

    return choose


def _raise_as_gateway_error(request: Request, exception: Exception) -> Response:
    """Raises the GatewayError for a refusal of Starlette, which comes before any route. The envelope answers."""
    status = exception.status_code if isinstance(exception, HTTPException) else 500
    error: GatewayError
    if status == 405:
        error = MethodNotAllowed(f"Not allowed to {request.method} on {request.url.path}.")
        allow = (getattr(exception, "headers", None) or {}).get("Allow", "")
        error.headers.append((b"allow", allow.encode()))
    elif status == 404:
        error = UnknownUrl(unknown_path_message(request.url.path))
    else:
        error = InvalidRequest(str(exception))
    raise error
