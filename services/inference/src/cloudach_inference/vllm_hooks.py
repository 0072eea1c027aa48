"""What we change in Ray Serve LLM's start of a vLLM replica. Only a replica and its deployer import this."""

from __future__ import annotations

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.server import llm_server


class NoDownload(CallbackBase):  # type: ignore[misc]
    """The weights are a folder on this machine."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class LLMServer(llm_server.LLMServer):  # type: ignore[misc]
    """Ray's, without its telemetry actor: 400 MB and 6 s of the start, even where usage stats are off.

    It has the same name because the deployment is named after it.
    """

    async def _start_engine(self) -> None:
        await self.engine.start()
