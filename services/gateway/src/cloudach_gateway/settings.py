"""Every setting of the gateway: its unit, its default and why. Read from one YAML file; bad ones are refused at start.

Any value can be given as `${NAME}` or `${NAME:-default}` to take it from the environment, so that a secret need not
stand in the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Seconds = Annotated[float, Field(gt=0)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(_Group):
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="/metrics is served here, on the same host; off when empty"
    )
    processes: int = Field(1, ge=1, description="gateway processes that share the port; one saturates about one core")


class Redis(_Group):
    """Where keys, limits and usage live. Without a `url` the start command runs an embedded Valkey on loopback."""

    url: str | None = Field(
        None,
        description="redis://, rediss:// (TLS), unix://, redis+sentinel://host:port,…/service, redis+cluster://host:port",
    )
    data_dir: Path = Field(
        Path(".run/valkey"), description="where the embedded Valkey keeps its data (append-only file)"
    )
    timeout_s: Seconds = Field(0.5, description="one round trip; past it the request goes on without Redis")
    probe_every_s: Seconds = Field(1.0, description="how often a lost Redis is tried again")


class Limits(_Group):
    window_s: Seconds = Field(60.0, description="what 'a minute' is; shorter only in tests")
    default_max_tokens: int = Field(
        1024, ge=1, description="tokens reserved for a request that names no max_tokens; settled to the real usage"
    )
    lease_ttl_s: Seconds = Field(
        20.0, description="a stream's concurrency lease; renewed while it runs, so a killed gateway's frees itself"
    )
    promise_grace_s: Seconds = Field(
        5.0,
        ge=1.5,  # Retry-After in whole seconds is rounded up, and the way takes a while too
        description="how long a slot promised by Retry-After is kept for the one who was told to wait",
    )
    degraded_memory_s: Seconds = Field(
        600.0, description="without Redis, keys seen in this time go on under a local limit; others get 503"
    )


class Usage(_Group):
    """One record for each request, for billing to read: docs/usage.md."""

    keep_days: float = Field(
        7.0, gt=0, description="how long a record is kept once all consumer groups have acknowledged it"
    )


class Timeouts(_Group):
    """The one table of timeouts towards an engine."""

    connect_s: Seconds = Field(2.0, description="TCP connect; engines are near")
    first_token_s: Seconds = Field(120.0, description="request sent to first token: queue and prefill of a long prompt")
    between_tokens_s: Seconds = Field(30.0, description="silence in a running stream before it counts as broken")
    slow_reader_s: Seconds = Field(
        60.0, description="a client that reads nothing for so long is cut off, and the engine's work with it"
    )
    total_s: Seconds = Field(900.0, description="a request's whole life")
    heartbeat_s: Seconds = Field(
        5.0, description="silence towards a streaming client before a ': keep-alive' comment; idle proxies cut at 60 s"
    )
    drain_s: Seconds = Field(60.0, description="after SIGTERM: how long running streams may go on")
    retries: int = Field(2, ge=0, description="further attempts before the first byte, where it is safe")


class Failover(_Group):
    """What happens when an engine breaks off in mid-stream: another one goes on from the same token."""

    enabled: bool = Field(True, description="off: the client gets the error frame at once")
    attempts: int = Field(8, ge=1, description="engines asked in a row without a new token")
    budget_s: Seconds = Field(30.0, description="time without an engine, per break")
    spread_s: Seconds = Field(0.25, description="streams that break together go on spread over so long")


class Adapter(_Group):
    """A LoRA adapter that the engines have loaded: a model of its own for clients."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="clients call it <model id>:<name>")
    id: str | None = Field(None, min_length=1, description="what clients call it before all, if something else")
    upstream_model: str | None = Field(
        None, description="the engine's own name for it, if not <the model's>:<name>; vLLM's --lora-modules gives it"
    )

    def names(self, model: Model) -> tuple[str, ...]:
        """Its id and then its aliases."""
        own = tuple(f"{name}:{self.name}" for name in (model.id, *model.aliases))
        return own if self.id is None else (self.id, *own)


class Model(_Group):
    """One model and the engines that serve it."""

    id: str = Field(min_length=1, description="the name that clients use")
    aliases: tuple[str, ...] = Field((), description="further names for it")
    upstreams: tuple[str, ...] = Field(min_length=1, description="base URLs; /v1/chat/completions is appended")
    upstream_model: str | None = Field(None, description="the engine's own name for it, if not `id`")
    api_key: str | None = Field(None, description="sent to the engine as its bearer token, never the caller's key")
    dialect: Literal["vllm", "openai"] = Field(
        "vllm",
        description="vllm: asks for token ids, so that a cut stream is billed exactly; openai: only standard fields",
    )
    max_model_len: int | None = Field(None, ge=1, description="tokens of prompt and answer together")
    adapters: tuple[Adapter, ...] = Field((), description="LoRA adapters, each a model of its own")

    @field_validator("upstreams")
    @classmethod
    def _http(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not re.match(r"https?://[^/\s]+", url):
                raise ValueError(f"{url!r} is not an http:// or https:// URL")
        return tuple(url.rstrip("/").removesuffix("/v1") for url in urls)


class Kubernetes(_Group):
    """Models that the gateway learns of from the cluster, beside those of `models`: docs/kubernetes.md."""

    enabled: bool = Field(False, description="serve the Model resources of a cluster too")
    namespaces: tuple[str, ...] = Field((), description="whose Models are served; empty: all of the cluster")
    label_selector: str = Field("", description="only Models with these labels, as `tier=production`")
    kubeconfig: Path | None = Field(
        None, description="how to reach the API server; without it the service account of the gateway's pod"
    )
    context: str | None = Field(None, description="of the kubeconfig; the default is its current one")
    cache_file: Path | None = Field(
        None, description="the last known Models, for a gateway that starts while the API server is away"
    )
    start_wait_s: Seconds = Field(
        10.0, description="how long a start waits for the Models; past it what is known otherwise is served"
    )
    timeout_s: Seconds = Field(10.0, description="one question to the API server")
    resync_s: Seconds = Field(1800.0, description="how often all Models are listed anew, beside the watch")
    wake_wait_s: float = Field(
        300.0, ge=0, description="how long a stream waits, with heart-beats, for a Model that it wakes"
    )
    wake_wait_whole_s: float = Field(
        45.0, ge=0, description="the same for answers in one piece, which have no heart-beats; idle proxies cut at 60 s"
    )
    wake_again_s: Seconds = Field(10.0, description="a Model that still sleeps is asked for anew after so long")
    in_use_every_s: Seconds = Field(
        45.0, le=55, description="how often a Model that may sleep is marked as in use; controllers let a minute pass"
    )

    @field_validator("namespaces")
    @classmethod
    def _names(cls, namespaces: tuple[str, ...]) -> tuple[str, ...]:
        for name in namespaces:
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
                raise ValueError(f"{name!r} is no name of a namespace")
        if len(set(namespaces)) < len(namespaces):
            raise ValueError("a namespace is named twice")
        return namespaces


class Settings(_Group):
    listen: Listen = Listen()
    redis: Redis = Redis()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    failover: Failover = Failover()
    usage: Usage = Usage()
    models: tuple[Model, ...] = ()
    kubernetes: Kubernetes = Kubernetes()
    max_body_bytes: int = Field(10 * 1024 * 1024, ge=1024, description="larger request bodies get 413")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _some_models(self) -> Settings:
        if not self.models and not self.kubernetes.enabled:
            raise ValueError("models: name at least one, or set kubernetes.enabled")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Settings:
        seen: set[str] = set()
        for model in self.models:
            own = (model.id, *model.aliases)
            for name in (*own, *(name for adapter in model.adapters for name in adapter.names(model))):
                if name in seen:
                    raise ValueError(f"models: the name {name!r} is used twice")
                seen.add(name)
        return self


class ConfigError(Exception):
    """The configuration cannot be used; the message says which field and why."""


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expand(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item) for item in value]
    if not isinstance(value, str):
        return value

    def from_environment(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise ConfigError(f"the environment variable {match[1]} is not set, and ${{{match[1]}}} names no default")
        return found

    return _VARIABLE.sub(from_environment, value)


def parse(text: str, *, source: str = "configuration") -> Settings:
    """Raises ConfigError, with one line for each bad field."""
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping of settings")
    try:
        return Settings.model_validate(_expand(raw))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{source}:\n" + "\n".join(lines)) from error


def load(path: Path) -> Settings:
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return parse(text, source=str(path))
