"""These settings say which models to serve, and on what. `cloudach_service.settings` reads them from one file.

docs/reference/settings.md is made from these classes by `make settings-docs`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cloudach_service import settings as loader
from cloudach_service.settings import FOLDER_OR_NAME, ConfigError, Group, MediaDomain, Name, Port, Seconds, header_text
from cloudach_service.traces.settings import Receiver
from pydantic import Field, model_validator

from .slugs import slug

DEFAULT_SOURCE = "default"

Source = Annotated[str, Field(min_length=1), FOLDER_OR_NAME]


class Resources(Group):
    """Ray sets this aside for one replica. On a single machine that is bookkeeping only, on a cluster it is real."""

    cpu: float = Field(1.0, gt=0, le=100_000, description="CPU cores")
    gpu: int | None = Field(None, ge=0, description="GPUs; by default as many as tensor and pipeline parallelism need")


class Adapter(Group):
    """One LoRA adapter of a model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the engine answers to <model id>:<name>")
    source: Annotated[Source | None, FOLDER_OR_NAME] = Field(
        None, description="a Hugging Face id or a local folder; sim: none"
    )


class Model(Group):
    """One model and its replicas."""

    id: Name = Field(description="the name that the engine answers to")
    engine: Literal["vllm", "sim"] = Field("vllm", description="vllm, or the simulator in its dialect")
    source: Source = Field(
        DEFAULT_SOURCE,
        description="a Hugging Face id, a local folder, or 'default': SmolLM2-135M-Instruct from the package registry",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="vLLM's engine arguments (or the simulator's settings), passed through"
    )
    env: dict[str, str] = Field(default_factory=dict, description="further environment variables of this engine")
    adapters: tuple[Adapter, ...] = Field((), description="LoRA adapters; every replica loads all of them")
    allowed_media_domains: tuple[MediaDomain, ...] = Field(
        (), description="whose images, audio and video the engine fetches by URL: host, or host:port; '*' for all names"
    )
    replicas: int = Field(1, ge=1, le=10_000, description="replicas of the engine")
    drain_s: Seconds = Field(
        60.0, description="how long a replica that is to go may finish its streams; the gateway moves the rest"
    )
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _adapters_are_known(self) -> Model:
        names = [adapter.name for adapter in self.adapters]
        if len(set(names)) < len(names):
            raise ValueError("adapters: a name is used twice")
        for adapter in self.adapters:
            if (adapter.source is None) != (self.engine == "sim"):
                problem = "a simulator's adapters have no source" if self.engine == "sim" else "name its source"
                raise ValueError(f"adapters.{adapter.name}: {problem}")
        return self

    @model_validator(mode="after")
    def _platform_owns(self) -> Model:
        for name in ("model", "served_model_name", "api_key", "host", "port"):
            if self.engine == "vllm" and name in self.engine_args:
                raise ValueError(f"engine_args.{name} is set by the platform; `id` and `source` name the model")
        if self.engine == "vllm" and "allowed_media_domains" in self.engine_args:
            raise ValueError("engine_args.allowed_media_domains is set by the platform; set allowed_media_domains")
        return self


class Telemetry(Group):
    """The engines tell this of requests beside their metrics: docs/observability.md."""

    traces: Receiver = Receiver()


class Settings(Group):
    """The settings of the inference service."""

    models: tuple[Model, ...] = Field(min_length=1, description="the models to serve")
    http_port: Port = Field(0, description="the ingress listens on it, on 127.0.0.1; 0: a free one")
    api_key_env: str = Field(
        "CLOUDACH_ENGINE_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable with the key that the engines want; unset: no lock",
    )
    api_key_file: Path | None = Field(None, description="file with that key, instead of the variable")
    state_dir: Path = Field(Path(".run"), description="engines.log lies there, and ray-logs after a failed start")
    cache_dir: Path | None = Field(None, description="prepared weights; ~/.cache/cloudach by default, shared by clones")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: GPUs where there are any and vLLM can")
    start_timeout_s: Seconds = Field(900.0, description="for all engines to answer; a download counts in")
    stream_limit_s: int = Field(
        960,
        ge=1,
        le=10**9,
        description="how long a stream lives on an old ingress process after a scaling; above the gateway's",
    )

    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _routes_are_unique(self) -> Settings:
        seen: dict[str, str] = {}
        for model in self.models:
            route = slug(model.id)
            if route in seen:
                raise ValueError(f"models: the ids {seen[route]!r} and {model.id!r} both come to the route /{route}")
            seen[route] = model.id
        return self


def parse(text: str, *, source: str = "configuration") -> Settings:
    """Reads the settings in a text. Raises ConfigError, with one line for each bad field."""
    return loader.parse(Settings, text, source=source)


def load(path: Path) -> Settings:
    """Reads the settings of a file. Raises ConfigError."""
    return loader.load(Settings, path)


def api_key(settings: Settings, environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns the key that locks the replicas.

    Raises ConfigError for a file that cannot be read or is empty, and for a key that no header can hold.
    """
    name, file = settings.api_key_env, settings.api_key_file
    try:
        if file is None:
            return header_text(environment.get(name, "")) or None
        name = "api_key_file"
        key = header_text(file.read_text("latin-1"))
    except OSError as error:
        raise ConfigError(f"api_key_file: cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    if not key:
        raise ConfigError(f"api_key_file: {file} is empty")
    return key


__all__ = ["ConfigError", "Settings", "api_key", "load", "parse"]
