"""Our gateway with everything on: keys, limits, metering, its embedded Valkey, one process."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.client import Target
from tests.bench.cpu import children, command_name
from tests.bench.machine import on_all_cores
from tests.support.processes import ServerFailed
from tests.support.stack import Gateway, create_key, start_gateway

from .base import PROXY, Contender

_VALKEY = "valkey"
_ENDLESS = 1_000_000_000


class Cloudach(Contender):
    name = "cloudach"
    title = "Cloudach"
    _gateway: Gateway | None = None

    def start(self) -> Target:
        model = {"id": self.engine.model, "upstreams": [self.engine.url]}
        # Limits that are checked on each request and never reached.
        limits = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "concurrent_streams"), _ENDLESS)
        try:
            self._gateway = self._start_gateway({"models": [model]})
            with on_all_cores():
                key = create_key(self._gateway, tenant="bench", name="bench", **limits)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            raise ServerFailed(str(error)) from error
        return Target(self._gateway.url, self.engine.model, {"Authorization": f"Bearer {key}"})

    def _start_gateway(self, config: Mapping[str, Any]) -> Gateway:
        return start_gateway(config)

    def parts(self) -> Mapping[str, Sequence[int]]:
        """Valkey apart from the gateway: in production it is another machine's."""
        if self._gateway is None:
            return {}
        own = self._gateway.process.pid
        parts: dict[str, list[int]] = {PROXY: [own], _VALKEY: []}
        for child in children(own):
            parts[_VALKEY if command_name(child).startswith("valkey") else PROXY].append(child)
        return parts

    def stop(self) -> None:
        if self._gateway:
            self._gateway.stop()

    def complaints(self) -> str:
        lines = self._gateway.output.splitlines() if self._gateway else []
        return "\n".join([line for line in lines if '"level":"info"' not in line.replace(" ", "")][-10:])

    def version(self) -> str:
        return importlib.metadata.version("cloudach-gateway")
