"""Which models to serve, and on what: one YAML file, refused at start when anything in it is wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .slugs import slug

DEFAULT_SOURCE = "default"


class ConfigError(Exception):
    """The configuration cannot be used; the message says which field and why."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Group):
    """What Ray sets aside for one replica. Only bookkeeping on a machine of one's own; real on a cluster."""

    cpu: float = Field(1.0, gt=0, description="CPU cores")
    gpu: int | None = Field(None, ge=0, description="GPUs; by default as many as tensor and pipeline parallelism need")


class Adapter(_Group):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the engine answers to <model id>:<name>")
    source: str | None = Field(None, min_length=1, description="a Hugging Face id or a local folder; sim: none")


class Model(_Group):
    id: str = Field(min_length=1, description="the name that the engine answers to")
    engine: Literal["vllm", "sim"] = Field("vllm", description="vllm, or the simulator in its dialect")
    source: str = Field(
        DEFAULT_SOURCE,
        min_length=1,
        description="a Hugging Face id, a local folder, or 'default': SmolLM2-135M-Instruct from the package registry",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="vLLM's engine arguments (or the simulator's settings), passed through"
    )
    env: dict[str, str] = Field(default_factory=dict, description="further environment variables of this engine")
    adapters: tuple[Adapter, ...] = Field((), description="LoRA adapters; every replica loads all of them")
    replicas: int = Field(1, ge=1)
    drain_s: float = Field(
        60.0, gt=0, description="how long a replica that is to go may finish its streams; the gateway moves the rest"
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
        return self


class Settings(_Group):
    models: tuple[Model, ...] = Field(min_length=1)
    http_port: int = Field(0, ge=0, le=65535, description="of the ingress, on 127.0.0.1; 0: a free one")
    api_key_env: str = Field(
        "CLOUDACH_ENGINE_API_KEY", description="environment variable with the key that the engines want; unset: no lock"
    )
    api_key_file: Path | None = Field(None, description="file with that key, instead of the variable")
    state_dir: Path = Field(Path(".run"), description="logs")
    cache_dir: Path | None = Field(None, description="prepared weights; ~/.cache/cloudach by default, shared by clones")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: GPUs where there are any and vLLM can")
    start_timeout_s: float = Field(900.0, gt=0, description="for all engines to answer; a download counts in")
    stream_limit_s: int = Field(
        960, ge=1, description="how long a stream lives on an old ingress process after a scaling; above the gateway's"
    )

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
    """Raises ConfigError, with one line for each bad field."""
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping with a list of `models`")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{source}:\n" + "\n".join(lines)) from error


def load(path: Path) -> Settings:
    """Raises ConfigError."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return parse(text, source=str(path))


def api_key(settings: Settings, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key that locks the replicas. Raises ConfigError when its file cannot be read or is empty."""
    if settings.api_key_file is None:
        return environment.get(settings.api_key_env) or None
    try:
        key = settings.api_key_file.read_text().strip()
    except OSError as error:
        raise ConfigError(f"api_key_file: cannot read {settings.api_key_file}: {error.strerror}") from error
    if not key:
        raise ConfigError(f"api_key_file: {settings.api_key_file} is empty")
    return key
