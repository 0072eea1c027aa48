"""The gateway's composition root: settings in, ASGI application out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from openai_wire.requests import ChatRequest, CompletionRequest, EmbeddingRequest
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from . import metrics
from .catalog import Catalog, ServedModel
from .errors import GatewayError, InvalidRequest, MethodNotAllowed, UnknownUrl
from .lifecycle import Lifecycle
from .middleware.envelope import Envelope
from .proxy.engines import Engines
from .proxy.relay import Relay
from .ratelimit.admission import Admission
from .routes.generation import GenerationEndpoint, Services
from .routes.health import HealthEndpoint
from .routes.models import ModelsEndpoint
from .settings import Settings


def build(settings: Settings, *, redis_url: str, lifecycle: Lifecycle) -> FastAPI:
    """The application; it connects when its lifespan starts, and is ready then."""
    engines = Engines(connect_s=settings.timeouts.connect_s)
    admission = Admission(redis_url, settings.redis, settings.limits, on_degraded=metrics.DEGRADED.set)
    services = Services(
        settings=settings,
        catalog=Catalog(ServedModel.from_settings(model) for model in settings.models),
        admission=admission,
        relay=Relay(engines, settings.timeouts, settings.failover),
        lifecycle=lifecycle,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engines.start()
        await admission.start()
        lifecycle.open()
        try:
            yield
        finally:
            await admission.close()
            engines.stop()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.router.routes += [
        _post("/v1/chat/completions", GenerationEndpoint(services, ChatRequest, "/v1/chat/completions")),
        _post("/v1/completions", GenerationEndpoint(services, CompletionRequest, "/v1/completions")),
        _post("/v1/embeddings", GenerationEndpoint(services, EmbeddingRequest, "/v1/embeddings")),
        Route("/v1/models", ModelsEndpoint(services), methods=["GET"]),
        Route("/v1/models/{model:path}", ModelsEndpoint(services), methods=["GET"]),
        Route("/healthz", HealthEndpoint(lifecycle, readiness=False), methods=["GET"]),
        Route("/readyz", HealthEndpoint(lifecycle, readiness=True), methods=["GET"]),
    ]
    app.add_exception_handler(HTTPException, _in_our_words)
    app.add_middleware(Envelope, lifecycle=lifecycle)
    return app


def _post(path: str, endpoint: GenerationEndpoint) -> Route:
    return Route(path, endpoint, methods=["POST"])


def _in_our_words(request: Request, exception: Exception) -> Response:
    """Starlette's own refusals, which come before any route, as errors that the envelope understands."""
    status = exception.status_code if isinstance(exception, HTTPException) else 500
    error: GatewayError
    if status == 405:
        error = MethodNotAllowed(f"Not allowed to {request.method} on {request.url.path}.")
        allow = (getattr(exception, "headers", None) or {}).get("Allow", "")
        error.headers.append((b"allow", allow.encode()))
    elif status == 404:
        error = UnknownUrl(f"Unknown request URL: {request.method} {request.url.path}.")
    else:
        error = InvalidRequest(str(exception))
    raise error
