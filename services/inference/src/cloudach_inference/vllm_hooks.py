"""These classes change how Ray Serve LLM starts a vLLM replica. Only a replica and its deployer import this.

RayServices of running Models name this module by its path, so it stays where it is.
"""

from __future__ import annotations

from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.configs.accelerators import CPUConfig
from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig
from ray.llm._internal.serve.core.server import llm_server

from .replica.adapters import Adapter, AdapterError, Lora, engine_args, engine_name, fetch
from .replica.late_cancel import LateCancel
from .replica.lock import Keys, Lock
from .replica.own_address import keep_to_own_address


class NoDownload(CallbackBase):  # type: ignore[misc]
    """Skips the download, because the weights are a folder on this machine."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class WithAdapters(CallbackBase):  # type: ignore[misc]
    """Brings LoRA adapters onto every node of the replica before its engine starts, and tells the engine their size.

    `kwargs` holds `lora`, the fields of `adapters.Lora`. `download_model` in it says that the base's weights are
    elsewhere.
    """

    @property
    def lora(self) -> Lora:
        return Lora.model_validate(self.kwargs["lora"])

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = self.kwargs["download_model"] or any(a.downloaded for a in self.lora.adapters)

    def on_before_download_model_files_distributed(self) -> None:
        for adapter in self.lora.adapters:
            fetch(adapter)

    async def on_after_node_init(self) -> None:
        given = self.llm_config.engine_kwargs  # what the operator says (as max_cpu_loras) stands
        found = engine_args(self.lora, on_cpu=isinstance(self.llm_config.accelerator_config, CPUConfig))
        self.llm_config.update_engine_kwargs(**{name: found[name] for name in found if name not in given})


class LLMServer(llm_server.LLMServer):  # type: ignore[misc]
    """This is Ray's LLMServer with four changes. It has the same name because the deployment is named after it.

    - There is no telemetry actor, which takes 400 MB and 6 s of the start even where usage stats are off.
    - A client that leaves before an answer in one piece stops the engine: see `late_cancel`.
    - The engine's key guards every path but health, and only what the gateway uses is served: see `lock`.
    - LoRA adapters are loaded before the first request. vLLM's own `lora_modules` would not say which one failed.
    """

    async def __serve_build_asgi_app__(self) -> Any:
        app = await super().__serve_build_asgi_app__()
        app.middleware_stack = None  # vLLM has built it; with None it is built anew
        app.add_middleware(LateCancel)
        app.add_middleware(Lock, keys=self._keys)  # the last one added is asked first
        return app

    async def _start_engine(self) -> None:
        keep_to_own_address()
        self._keys = Keys.taken_from_environment()
        await self.engine.start()
        callback = self._llm_config.get_or_create_callback()
        if isinstance(callback, WithAdapters):
            for adapter in callback.lora.adapters:
                await self._load(adapter)

    async def _load(self, adapter: Adapter) -> None:
        name = engine_name(self._llm_config.model_id, adapter.name)
        try:
            await self.engine.resolve_lora(
                DiskMultiplexConfig(
                    model_id=name, local_path=str(adapter.path), max_total_tokens=None, lora_assigned_int_id=0
                )
            )
        except ValueError as error:
            raise AdapterError.of(adapter.name, f"the engine refuses it: {error}") from error
