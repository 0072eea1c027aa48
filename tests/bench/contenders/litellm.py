"""LiteLLM's proxy: one worker, its master key asked for, and neither a database nor telemetry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import yaml

from tests.bench.client import Target
from tests.support.ports import free_port

from .base import Contender, PortServer, whole_tree
from .environment import Environment

_KEY = "sk-bench"
# As its documentation wants it in production; the map of prices would else come from the network. By its default it
# opens 500 connections to an engine, and the bench opens more streams.
_ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
    "AIOHTTP_CONNECTOR_LIMIT": "4096",
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "4096",
    "DATABASE_URL": None,
}
_TROUBLE = re.compile("ERROR|WARNING|Error:|Exception")
_START_S = 180.0
"""It imports for ten seconds and more."""


class LiteLLM(Contender):
    name = "litellm"
    title = "LiteLLM"
    environment = Environment("litellm")
    _server: PortServer | None = None

    def start(self) -> Target:
        port = free_port()
        engine = {"model": f"hosted_vllm/{self.engine.model}", "api_base": f"{self.engine.url}/v1", "api_key": "none"}
        config = {
            "model_list": [{"model_name": self.engine.model, "litellm_params": engine}],
            "general_settings": {"master_key": _KEY},
            "litellm_settings": {"request_timeout": 600},
            "router_settings": {"disable_cooldowns": True},
        }
        file = self.folder / "litellm.yaml"
        file.write_text(yaml.safe_dump(config))
        program = self.environment.program("litellm")
        options = ["--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        self._server = PortServer([program, *options], port, env=_ENVIRONMENT, patience_s=_START_S)
        return Target(self._server.url, self.engine.model, {"Authorization": f"Bearer {_KEY}"})

    def parts(self) -> Mapping[str, Sequence[int]]:
        return whole_tree(self._server) if self._server else {}

    def stop(self) -> None:
        if self._server:
            self._server.stop(patience_s=3)

    def complaints(self) -> str:
        lines = self._server.output.splitlines() if self._server else []
        return "\n".join([line for line in lines if _TROUBLE.search(line)][-10:])

    def version(self) -> str:
        return self.environment.pinned("litellm")
