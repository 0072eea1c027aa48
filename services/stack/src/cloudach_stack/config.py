"""Reads the models of a one-machine stack, and makes the settings of the engines and of the gateway from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cloudach_service import settings as loader
from cloudach_service.settings import (
    FOLDER_OR_NAME,
    PASSED_ON,
    ConfigError,
    Group,
    MediaDomain,
    Name,
    escaped,
    expanded,
)
from pydantic import Field

Engine = Literal["vllm", "sim", "ray-sim"]
Source = Annotated[str, Field(min_length=1), FOLDER_OR_NAME]

GATEWAY_PATHS = (("redis", "data_dir"), ("kubernetes", "kubeconfig"), ("kubernetes", "cache_file"))
"""The gateway's settings that are paths; relative ones are relative to the stack's file."""

_REFUSED_DRAIN_S = 10.0  # the gateway does not start with such a setting, so it ends at once


class Adapter(Group):
    """One LoRA adapter of a model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="clients call it <model id>:<name>")
    id: Name | None = Field(None, description="what clients call it before all, if something else")
    source: Source = Field(description="a Hugging Face id or a local folder; the simulator needs none of it")


class Model(Group):
    """One model and its engines."""

    id: Name = Field(description="the name that clients use")
    aliases: tuple[Name, ...] = Field((), description="further names for it")
    source: Source = Field(
        "default", description="a Hugging Face id, a local folder, or 'default': SmolLM2-135M-Instruct"
    )
    engine_args: dict[str, Any] = Field(default_factory=dict, description="vLLM's engine arguments, passed through")
    adapters: tuple[Adapter, ...] = Field((), description="LoRA adapters, each a model of its own")
    allowed_media_domains: tuple[MediaDomain, ...] = Field(
        (), description="whose images, audio and video clients may name by URL; without any, only data: URLs are taken"
    )
    replicas: int = Field(1, ge=1, le=10_000, description="replicas of the engine")


class StackConfig(Group):
    """The settings of `make run CONFIG=FILE`."""

    models: tuple[Model, ...] = Field(min_length=1, description="the models to serve")
    gateway: Annotated[dict[str, Any], PASSED_ON] = Field(
        default_factory=dict, description="settings of the gateway, as in its own file"
    )


# `llama3-8b` is the model that the guide's examples name.
DEFAULT = StackConfig(models=(Model(id="smollm2-135m-instruct", aliases=("llama3-8b",)),))


def load(path: Path | None) -> StackConfig:
    """Reads the stack's file. Without one the default model is served. Raises ConfigError."""
    if path is None:
        return DEFAULT
    config = loader.load(StackConfig, path)
    return config.model_copy(update={"gateway": _anchored(config.gateway, path.absolute().parent)})


def _anchored(gateway: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Makes paths absolute, because the gateway reads its settings from a file in another folder."""
    found = dict(gateway)
    for group, name in GATEWAY_PATHS:
        inner = found.get(group)
        if isinstance(inner, dict) and isinstance(inner.get(name), str):
            path = folder / Path(expanded(inner[name])).expanduser()
            found[group] = {**inner, name: escaped(str(path))}
    return found


def inference_config(config: StackConfig, engine: Engine, state_dir: Path) -> dict[str, Any]:
    """Returns the settings of `cloudach-inference serve`, to be written into its file."""
    kind = "sim" if engine == "ray-sim" else "vllm"
    models = [
        {
            "id": model.id,
            "engine": kind,
            "replicas": model.replicas,
            "allowed_media_domains": list(model.allowed_media_domains),
            "adapters": [
                {"name": adapter.name, **({"source": adapter.source} if kind == "vllm" else {})}
                for adapter in model.adapters
            ],
            **({"source": model.source, "engine_args": model.engine_args} if kind == "vllm" else {}),
        }
        for model in config.models
    ]
    telemetry = {"telemetry": {"traces": told}} if (told := traces(config)) else {}
    return {"models": escaped(models), "state_dir": escaped(str(state_dir)), **telemetry}


def traces(config: StackConfig) -> dict[str, Any]:
    """Returns what engines are told of traces: the receiver that the section `gateway` names."""
    found = config.gateway
    for group in ("telemetry", "traces"):
        inner = found.get(group)
        found = inner if isinstance(inner, dict) else {}
    return {name: found[name] for name in ("endpoint", "protocol") if found.get(name) is not None}


def gateway_config(
    config: StackConfig, *, port: int, state_dir: Path, upstreams: dict[str, str], api_key: str | None
) -> dict[str, Any]:
    """Returns the settings of `cloudach-gateway`, to be written into its file. The section `gateway` wins."""
    models = [
        {
            "id": model.id,
            "aliases": list(model.aliases),
            "upstreams": [upstreams[model.id]],
            "allowed_media_domains": list(model.allowed_media_domains),
            "adapters": [adapter.model_dump(include={"name", "id"}) for adapter in model.adapters],
            **({"api_key": api_key} if api_key else {}),
        }
        for model in config.models
    ]
    own: dict[str, Any] = {
        "listen": {"host": "127.0.0.1", "port": port},
        "redis": {"data_dir": escaped(str(state_dir / "valkey"))},
        "timeouts": {"drain_s": 10},
        "models": escaped(models),
    }
    return _merged(own, config.gateway)


def drain_s(gateway: dict[str, Any]) -> float:
    """Says how long the gateway with these settings may take for its drain."""
    try:
        return float(expanded(str(gateway["timeouts"]["drain_s"])))
    except (ValueError, TypeError, KeyError):
        return _REFUSED_DRAIN_S


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], value) if isinstance(base.get(key), dict) and isinstance(value, dict) else value
        for key, value in over.items()
    }
    return base | both


__all__ = ["DEFAULT", "ConfigError", "Engine", "StackConfig", "gateway_config", "inference_config", "load", "traces"]
