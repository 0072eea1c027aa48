"""The simulator runs as a Ray Serve deployment."""

from __future__ import annotations

import atexit
import os
from typing import Any

from cloudach_simulator import traces
from cloudach_simulator.asgi import create_app
from cloudach_simulator.config import SimConfig
from ray import serve

from .lock import Keys, Lock
from .own_address import keep_to_own_address


def simulator(options: dict[str, Any]) -> type:
    """Returns a deployment class whose replicas each hold a simulator of their own, locked as vLLM's are."""

    def application() -> Any:
        keep_to_own_address()
        exporting = traces.start(os.environ)
        if exporting is not None:
            atexit.register(exporting.close)
        return Lock(create_app(sim_config(options), exporting), Keys.taken_from_environment(), more=("/sim/",))

    @serve.ingress(application)
    class Simulator:
        pass

    return Simulator


def sim_config(options: dict[str, Any]) -> SimConfig:
    """Raises TypeError for an option that the simulator does not know."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    return SimConfig(**(given | {"api_keys": ()}))  # the key is the lock's to ask for
