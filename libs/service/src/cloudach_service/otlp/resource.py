"""Says which process tells of itself, as OpenTelemetry's resource."""

from __future__ import annotations

import os
import socket
import uuid
from functools import lru_cache

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from .protobuf import Attributes


def of_service(name: str, version: str) -> Attributes:
    """Returns the attributes. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come before the service's own."""
    own = Resource(
        {
            "service.name": name,
            "service.namespace": "cloudach",
            "service.version": version,
            "service.instance.id": _instance(os.getpid()),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "cloudach",
            "telemetry.sdk.version": version,
        }
    )
    return dict(own.merge(OTELResourceDetector().detect()).attributes)


@lru_cache(maxsize=1)
def _instance(_: int) -> str:
    """Returns the id of this process, which is one for its traces, its metrics and its logs. A child has its own."""
    return str(uuid.uuid4())
