"""Says what process the spans are of, as OpenTelemetry's resource."""

from __future__ import annotations

import os
import socket
import uuid

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from .spans import Attributes


def of_service(name: str, version: str) -> Attributes:
    """Returns the attributes. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come before the service's own."""
    own = Resource(
        {
            "service.name": name,
            "service.namespace": "cloudach",
            "service.version": version,
            "service.instance.id": str(uuid.uuid4()),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "cloudach",
            "telemetry.sdk.version": version,
        }
    )
    return dict(own.merge(OTELResourceDetector().detect()).attributes)  # type: ignore[arg-type]
