"""What we change in Ray Serve LLM's start of a vLLM replica. Only a replica imports this."""

from __future__ import annotations

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.server.llm_server import LLMServer


class NoDownload(CallbackBase):  # type: ignore[misc]
    """The weights are a folder on this machine."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class Server(LLMServer):  # type: ignore[misc]
    """LLMServer without its telemetry actor, which takes 400 MB and 6 s of the start even where usage stats are off."""

    async def _start_engine(self) -> None:
        await self.engine.start()
