"""Serve applications are built from their plan here. This imports Ray, and vLLM where an application needs it."""

from __future__ import annotations

from typing import Any

from ray import serve

from .replica.adapters import Lora, engine_name
from .replica.app import App, with_defaults

WITH_ADAPTERS = "cloudach_inference.vllm_hooks.WithAdapters"


def build(app: App) -> Any:
    return _simulator(app) if app.engine == "sim" else _vllm(app)


def _vllm(app: App) -> Any:
    from ray.serve.llm import LLMConfig, build_openai_app

    from .replica import router_hooks
    from .vllm_hooks import LLMServer

    router_hooks.install()
    options = with_defaults(app.options)
    if app.lora is not None:
        callback = {"lora": app.lora, "download_model": "callback_config" not in options}
        options["callback_config"] = {"callback_class": WITH_ADAPTERS, "callback_kwargs": callback}
    return build_openai_app({"llm_configs": [LLMConfig(server_cls=LLMServer, **options)]})


def _simulator(app: App) -> Any:
    from .replica.sim_deployment import simulator

    options = {"prompt_tokens_details": True, **app.options}  # as vLLM replicas tell them
    if app.lora is not None:
        options["adapters"] = [engine_name(app.model_id, each.name) for each in Lora.model_validate(app.lora).adapters]
    deployment = serve.deployment(
        simulator(options),
        name=f"Simulator:{app.model_id}",
        num_replicas=app.replicas,
        max_ongoing_requests=100_000,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=app.drain_s,
        ray_actor_options={"num_cpus": app.cpus},
    )
    return deployment.bind()
