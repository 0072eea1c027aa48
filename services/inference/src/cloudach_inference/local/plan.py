"""A plan turns the configuration and the hardware into what Ray Serve is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..replica.adapters import Adapter, AdapterError, Lora, rank
from ..replica.app import App
from .config import DEFAULT_SOURCE, Model, Settings
from .hardware import Hardware
from .slugs import slug

# The default model on a CPU: an answer that never ends is over in a minute or two.
_DEFAULT_MODEL_LEN = 2048


class PlanError(Exception):
    """The machine cannot serve what is asked for; the message says what and why."""


def plan(settings: Settings, hardware: Hardware, default_weights: Path) -> tuple[App, ...]:
    """Raises PlanError."""
    engines = sum(model.replicas for model in settings.models if model.engine == "vllm")
    apps = tuple(
        _sim(model) if model.engine == "sim" else _vllm(model, hardware, default_weights, engines)
        for model in settings.models
    )
    gpus = sum(app.gpus * app.replicas for app in apps)
    if gpus > hardware.gpus:
        raise PlanError(f"models: {gpus} GPUs are asked for, and this machine has {hardware.gpus}")
    return apps


def engine_args(model: Model, hardware: Hardware) -> dict[str, Any]:
    """Returns our arguments with the operator's on top."""
    ours: dict[str, Any] = {}
    if hardware.device == "cpu":
        # torch.compile takes minutes on a small CPU and gains little there.
        ours |= {"dtype": cpu_dtype(model, hardware), "enforce_eager": True}
    if model.source == DEFAULT_SOURCE:
        ours |= {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
        if hardware.device == "cpu":
            ours["max_model_len"] = _DEFAULT_MODEL_LEN
    if model.allowed_media_domains:
        ours["allowed_media_domains"] = list(model.allowed_media_domains)
    return ours | model.engine_args


def cpu_dtype(model: Model, hardware: Hardware) -> str:
    """Chooses float32 for the default model: in bf16 an answer that is continued from its token ids often differs.

    Measured: 13 of 28 continuations differed in bf16, none in float32; bf16 was 1.3 times as fast with AVX512_BF16. An
    operator's own models are larger and bound by memory, so they get bf16 where the CPU is good at it.
    """
    if model.source == DEFAULT_SOURCE or not hardware.fast_bf16:
        return "float32"
    return "bfloat16"


def engine_env(
    model: Model, hardware: Hardware, *, local: bool, args: Mapping[str, Any], engines: int
) -> dict[str, str]:
    """Returns our variables with the operator's on top. `local` says that weights and adapters are all on
    this machine.
    """
    ours: dict[str, str] = {}
    if local:
        ours["HF_HUB_OFFLINE"] = "1"  # else each start asks the hub about a folder
    if hardware.device == "cpu":
        if args.get("enforce_eager"):
            # Samplers are compiled nevertheless: 20 s of the first request, and it takes a C++ compiler.
            ours["TORCHDYNAMO_DISABLE"] = "1"
        if model.source == DEFAULT_SOURCE:
            ours["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB: 23,000 tokens
        if engines > 1:
            # By itself each engine binds its threads to the same first cores.
            ours |= {
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(max(1, hardware.cores // engines)),
            }
    return ours | model.env


def ray_cpus(apps: tuple[App, ...], hardware: Hardware) -> int:
    """On one machine CPUs are bookkeeping only, so there are enough of them for every replica."""
    return max(hardware.cores, int(sum(app.cpus * app.replicas for app in apps)) + 2)


def _vllm(model: Model, hardware: Hardware, default_weights: Path, engines: int) -> App:
    source = str(default_weights) if model.source == DEFAULT_SOURCE else _folder_or_id(model.source)
    lora = _lora(model)
    local = source.startswith("/") and not (lora is not None and any(each.downloaded for each in lora.adapters))
    args = engine_args(model, hardware)
    options: dict[str, Any] = {
        "model_loading_config": {"model_id": model.id, "model_source": source},
        "deployment_config": {
            "num_replicas": model.replicas,
            "max_constructor_retry_count": 1,
            "graceful_shutdown_timeout_s": model.drain_s,
        },
        "engine_kwargs": args,
        "runtime_env": {"env_vars": engine_env(model, hardware, local=local, args=args, engines=engines)},
        "log_engine_metrics": False,  # vLLM's own /metrics stays on
    }
    gpus = 0
    if hardware.device == "gpu":
        gpus = model.resources.gpu or int(args.get("tensor_parallel_size", 1)) * int(
            args.get("pipeline_parallel_size", 1)
        )
        options["accelerator_config"] = {"kind": "gpu"}
        options["placement_group_config"] = {"bundles": [{"GPU": 1, "CPU": model.resources.cpu} for _ in range(gpus)]}
        cpus = 1 + model.resources.cpu * gpus
    else:
        if model.resources.gpu:
            raise PlanError(
                f"models.{model.id}: it wants {model.resources.gpu} GPUs, and none was found that vLLM can use"
            )
        options["accelerator_config"] = {"kind": "cpu"}
        options["placement_group_config"] = {"bundles": [{"CPU": model.resources.cpu}]}
        cpus = 1 + model.resources.cpu
    if source.startswith("/"):
        # Nothing to download: this saves a process that imports vLLM only to find that out.
        options["callback_config"] = {"callback_class": "cloudach_inference.vllm_hooks.NoDownload"}
    fields = lora.model_dump(exclude_none=True) if lora is not None else None
    return App(model.id, slug(model.id), "vllm", model.replicas, cpus, gpus, model.drain_s, options, fields)


def _sim(model: Model) -> App:
    options = {"models": [model.id], **model.engine_args}
    lora = {"adapters": [{"name": each.name} for each in model.adapters]} if model.adapters else None
    return App(model.id, slug(model.id), "sim", model.replicas, model.resources.cpu, 0, model.drain_s, options, lora)


def _lora(model: Model) -> Lora | None:
    if not model.adapters:
        return None
    found = []
    for adapter in model.adapters:
        assert adapter.source is not None
        if adapter.source.startswith(("/", "./", "../", "~")):
            one = Adapter(name=adapter.name, folder=str(Path(adapter.source).expanduser().resolve()))
            try:
                rank(one)
            except AdapterError as error:
                raise PlanError(f"models.{model.id}: {error}") from None
        else:
            one = Adapter(name=adapter.name, repo=adapter.source)
        found.append(one)
    return Lora(adapters=tuple(found), max_loaded=min(len(found), 8))


def _folder_or_id(source: str) -> str:
    if source.startswith(("/", "./", "../", "~")):
        folder = Path(source).expanduser().resolve()
        if not (folder / "config.json").is_file():
            raise PlanError(f"models: source {source}: no Hugging Face model lies there (no config.json)")
        return str(folder)
    return source
