"""These functions make the args that `cloudach_inference.serve:build` gets for a Model's engine. Pure.

Replica counts and drain times are not among them, because any change of the args restarts the replicas.
"""

from __future__ import annotations

from typing import Any

from cloudach_model_api.engine import argument
from cloudach_model_api.model import Model

from . import adapters

IMPORT_PATH = "cloudach_inference.serve:build"
APPLICATION = "model"
"""The one Serve application of a Model's Ray cluster has this name."""

_ROUTERS = {
    "prefixAware": "cloudach_inference.routers:PrefixAware",
    "kvAware": "ray.serve.llm.request_router:KVAwareRouter",
}


def deployment(model: Model) -> str:
    """Returns the name of the Serve deployment that holds the replicas."""
    kind = "Simulator" if model.spec.source.simulator is not None else "LLMServer"
    return f"{kind}:{model.upstream_model}"


def build_args(model: Model) -> dict[str, Any]:
    """Returns `args` of the Serve application."""
    simulated = model.spec.source.simulator is not None
    lora = adapters.of_engine(model)
    return {
        "engine": "sim" if simulated else "vllm",
        "name": model.upstream_model,
        "cpus": 1,
        "options": _simulator(model) if simulated else _vllm(model),
        **({"lora": lora} if lora is not None else {}),
    }


def runtime_env(model: Model) -> dict[str, str]:
    """Returns the variables with plain values. Those from Secrets and ConfigMaps are set in the pods."""
    return {variable.name: variable.value for variable in model.spec.engine.env if variable.value is not None}


def logical_cpus(model: Model) -> int:
    """Returns the CPUs that Ray counts for one worker pod. They suffice for what belongs there and nothing else."""
    if model.spec.source.simulator is not None:
        return 1
    return 1 + max(model.spec.gpu.count_per_pod, 1)


def _simulator(model: Model) -> dict[str, Any]:
    length = {} if model.spec.max_model_len is None else {"max_model_len": model.spec.max_model_len}
    return {**length, **{argument(name): value for name, value in model.spec.engine.args.items()}}


def _vllm(model: Model) -> dict[str, Any]:
    spec = model.spec
    gpus = model.spec.gpus_per_replica
    bundles = [{"GPU": 1, "CPU": 1} for _ in range(gpus)] or [{"CPU": 1}]
    options: dict[str, Any] = {
        "model_loading_config": {"model_id": model.upstream_model, "model_source": _weights(model)},
        "engine_kwargs": _engine_args(model),
        "accelerator_config": {"kind": "gpu" if gpus else "cpu"},
        "placement_group_config": {"bundles": bundles},
        "log_engine_metrics": False,  # vLLM's own /metrics stays on
    }
    env = runtime_env(model)
    if spec.source.pvc is not None or spec.source.image is not None:
        if not adapters.any_from_hub(model):
            env = {"HF_HUB_OFFLINE": "1"} | env  # else each start asks the hub about a folder
        options["callback_config"] = {"callback_class": "cloudach_inference.vllm_hooks.NoDownload"}
    if env:
        options["runtime_env"] = {"env_vars": env}
    if spec.routing != "balanced":
        options["deployment_config"] = {"request_router_config": {"request_router_class": _ROUTERS[spec.routing]}}
    return options


def _engine_args(model: Model) -> dict[str, Any]:
    spec = model.spec
    ours: dict[str, Any] = {}
    if spec.allowed_media_domains:
        ours["allowed_media_domains"] = list(spec.allowed_media_domains)
    if spec.max_model_len is not None:
        ours["max_model_len"] = spec.max_model_len
    if spec.gpu.tensor_parallel > 1:
        ours["tensor_parallel_size"] = spec.gpu.tensor_parallel
    if spec.gpu.pipeline_parallel > 1:
        ours["pipeline_parallel_size"] = spec.gpu.pipeline_parallel
    if spec.source.hugging_face is not None and spec.source.hugging_face.revision is not None:
        ours |= {"revision": spec.source.hugging_face.revision, "tokenizer_revision": spec.source.hugging_face.revision}
    return {**ours, **{argument(name): value for name, value in spec.engine.args.items()}}


def _weights(model: Model) -> str | dict[str, Any]:
    source = model.spec.source
    if source.hugging_face is not None:
        return source.hugging_face.repo
    if source.pvc is not None:
        return adapters.WEIGHTS_FOLDER + (f"/{source.pvc.path.rstrip('/')}" if source.pvc.path else "")
    if source.object_store is not None:
        return {"bucket_uri": source.object_store.uri}
    assert source.image is not None
    return source.image.path
