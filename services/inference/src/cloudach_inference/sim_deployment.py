"""The simulator as a Ray Serve deployment."""

from __future__ import annotations

import os
from typing import Any

from ray import serve

from .sim.asgi import create_app
from .sim.config import SimConfig


def simulator(options: dict[str, Any]) -> type:
    """A deployment class whose replicas each hold a simulator of their own, locked as vLLM's are."""

    def application() -> Any:
        key = os.environ.get("VLLM_API_KEY")
        return create_app(sim_config(options, api_key=key))

    @serve.ingress(application)
    class Simulator:
        pass

    return Simulator


def sim_config(options: dict[str, Any], *, api_key: str | None) -> SimConfig:
    """Raises TypeError for an option that the simulator does not know."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    return SimConfig(**(given | {"api_keys": (api_key,) if api_key else ()}))
