"""vLLM's router, in Rust: round robin, retries and circuit breaker as it has them, warnings logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench.client import Target
from tests.support.ports import free_port

from .base import Contender, PortServer, whole_tree
from .environment import Environment


class VllmRouter(Contender):
    name = "vllm-router"
    title = "vllm-router"
    environment = Environment("vllm-router")
    _server: PortServer | None = None

    def start(self) -> Target:
        port = free_port()
        options = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
        options += ["--worker-urls", self.engine.url, "--policy", "round_robin", "--log-level", "warning"]
        self._server = PortServer([self.environment.program("vllm-router"), *options], port)
        return Target(self._server.url, self.engine.model)

    def parts(self) -> Mapping[str, Sequence[int]]:
        return whole_tree(self._server) if self._server else {}

    def stop(self) -> None:
        if self._server:
            self._server.stop(patience_s=1)

    def complaints(self) -> str:
        return self._server.output[-2000:] if self._server else ""

    def version(self) -> str:
        return self.environment.pinned("vllm-router")
