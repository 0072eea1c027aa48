"""These classes change how Ray Serve LLM starts a vLLM replica. Only a replica and its deployer import this.

RayServices of running Models name this module by its path, so it stays where it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Mapping
from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.configs.accelerators import CPUConfig
from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig
from ray.llm._internal.serve.core.server import llm_server

from .replica.aborted import tell_of_aborted
from .replica.adapters import Adapter, AdapterError, Lora, engine_args, engine_name, fetch
from .replica.late_cancel import LateCancel
from .replica.lock import Keys, Lock
from .replica.own_address import keep_to_own_address
from .replica.traces import exported, makes_spans

_log = logging.getLogger("cloudach.traces")
_LAST_SPANS_MS = 3000


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
    """This is Ray's LLMServer with five changes. It has the same name because the deployment is named after it.

    - There is no telemetry actor, which takes 400 MB and 6 s of the start even where usage stats are off.
    - A client that leaves before an answer in one piece stops the engine: see `late_cancel`.
    - The engine's key guards every path but health, and only what the gateway uses is served: see `lock`.
    - LoRA adapters are loaded before the first request. vLLM's own `lora_modules` would not say which one failed.
    - vLLM's spans go where OpenTelemetry's variables say, also those of requests that are broken off: see `traces`.
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
        traced = self._switch_traces_on()
        await self.engine.start()
        if traced:
            _tell_of_aborted(self.engine)
        callback = self._llm_config.get_or_create_callback()
        if isinstance(callback, WithAdapters):
            for adapter in callback.lora.adapters:
                await self._load(adapter)

    def _switch_traces_on(self) -> bool:
        """Raises ConfigError for a variable with a bad value."""
        model = self._llm_config.model_id
        found = exported(os.environ, model, socket.gethostname(), str(uuid.uuid4()))
        given = self._llm_config.engine_kwargs
        if found is None or not makes_spans(given):
            if found is not None:
                _log.warning("disable_log_stats is set, so this engine exports no spans")
            os.environ.pop("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", None)  # vLLM's processes would heed it nevertheless
            return False
        os.environ.update(found.variables)
        self._llm_config.update_engine_kwargs(otlp_traces_endpoint=found.endpoint)
        return True

    async def __del__(self) -> None:
        """Serve calls this at a replica's end, before it kills the process with what has not been sent."""
        await super().__del__()
        await asyncio.to_thread(_send_last_spans)

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


def _tell_of_aborted(engine: Any) -> None:
    from vllm.tracing import SpanKind, extract_trace_context, instrument_manual

    def tell(began_ns: int, attributes: dict[str, Any], headers: Mapping[str, str] | None) -> None:
        context = extract_trace_context(headers)
        instrument_manual("llm_request", began_ns, None, attributes, context, SpanKind.SERVER)

    processor = getattr(engine._engine_client, "output_processor", None)
    if processor is None:
        _log.warning("this vLLM lacks what spans of aborted requests are made with")
    else:
        tell_of_aborted(processor, tell)


def _send_last_spans() -> None:
    from opentelemetry import trace

    flush = getattr(trace.get_tracer_provider(), "force_flush", None)  # without traces there is no real provider
    if flush is not None:
        flush(_LAST_SPANS_MS)
