"""What we change in Ray Serve LLM's start of a vLLM replica. Only a replica and its deployer import this."""

from __future__ import annotations

from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.server import llm_server

from .late_cancel import LateCancel


class NoDownload(CallbackBase):  # type: ignore[misc]
    """The weights are a folder on this machine."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class LLMServer(llm_server.LLMServer):  # type: ignore[misc]
    """Ray's, with two changes. It has the same name because the deployment is named after it.

    No telemetry actor: that takes 400 MB and 6 s of the start, even where usage stats are off.
    And whoever goes away before an answer in one piece stops the engine: see late_cancel.
    """

    async def __serve_build_asgi_app__(self) -> Any:
        app = await super().__serve_build_asgi_app__()
        app.middleware_stack = None  # vLLM has built it; with None it is built anew
        app.add_middleware(LateCancel)
        return app

    async def _start_engine(self) -> None:
        await self.engine.start()
