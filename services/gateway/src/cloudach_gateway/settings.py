"""Every setting of the gateway: its unit, its default and why. `cloudach_service.settings` reads them from one file.

docs/reference/settings.md is made from these classes by `make settings-docs`.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from cloudach_service import settings as loader
from cloudach_service.log_export.settings import Logs
from cloudach_service.metric_export.settings import Metrics
from cloudach_service.settings import BaseUrl, ConfigError, Group, Host, MediaDomain, Name, Port, Seconds, Secret
from cloudach_service.traces.settings import Traces
from openai_wire.fields import RESERVED
from openai_wire.guided_bounds import GuidedBounds
from pydantic import Field, StringConstraints, field_validator, model_validator

from . import redis_address

Text = Annotated[str, StringConstraints(min_length=1)]
Tokens = Annotated[int, Field(ge=1, le=2**31)]

_DATA_OF_VALKEY = "appendonlydir"

_KEY = r"([A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_SET = rf"\(\s*{_VALUE}(\s*,\s*{_VALUE})*\s*\)"
_REQUIREMENT = rf"\s*(!\s*{_KEY}|{_KEY}(\s*(==?|!=)\s*{_VALUE}|\s+(in|notin)\s*{_SET}|\s*[<>]\s*\d+)?)\s*"

OWN_LOGGERS = ("cloudach", "cloudach_gateway", "cloudach_kube")
"""The log level of these can be changed while the gateway runs."""


class Listen(Group):
    """These settings say where the gateway listens, and in how many processes."""

    host: Host = Field("127.0.0.1", description="the address to listen on; `0.0.0.0` for all")
    port: Port = Field(8080, description="0: a free one, printed at the start")
    metrics_port: Port | None = Field(None, description="/metrics is served here, on the same host; off when empty")
    processes: int = Field(
        1, ge=1, le=1024, description="gateway processes that share the port; one saturates about one core"
    )
    max_connections: int = Field(
        8192,
        ge=1,
        description="client connections of one process; a few more get answers about health, and 503 for all else",
    )

    @model_validator(mode="after")
    def _two_ports(self) -> Listen:
        if self.port and self.port == self.metrics_port:
            raise ValueError(f"port and metrics_port are both {self.port}")
        return self


class Redis(Group):
    """Redis holds keys, limits and usage. Without a `url` the gateway starts an embedded Valkey on loopback."""

    url: str | None = Field(
        None,
        repr=False,  # it may hold a password
        description="redis://, rediss:// (TLS), unix://, redis+sentinel://host:port,…/service, redis+cluster://host:port",
    )
    password: str | None = Field(
        None, repr=False, description="for a `url` without one; as it is, whatever characters it has"
    )
    data_dir: Path = Field(
        Path(".run/valkey"), description="where the embedded Valkey keeps its data (append-only file)"
    )
    timeout_s: Seconds = Field(0.5, description="one round trip; past it the request goes on without Redis")
    probe_every_s: Seconds = Field(1.0, description="how often a lost Redis is tried again")
    eviction_check_every_s: Seconds = Field(
        60.0, description="how often its maxmemory-policy is looked at: one that evicts loses keys and usage"
    )

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str | None) -> str | None:
        if url is not None:
            redis_address.parse(url)
        return url

    @property
    def target(self) -> str | None:
        """This is the URL with the password in it."""
        return None if self.url is None else redis_address.with_password(self.url, self.password)


class Limits(Group):
    """These settings say how limits are counted. The limits themselves belong to keys: docs/keys.md."""

    window_s: Seconds = Field(60.0, description="what 'a minute' is; shorter only in tests")
    default_max_tokens: Tokens = Field(
        1024, description="tokens reserved for a request that names no max_tokens; settled to the real usage"
    )
    lease_ttl_s: Seconds = Field(
        20.0, description="a stream's concurrency lease; renewed while it runs, so a killed gateway's frees itself"
    )
    promise_grace_s: Seconds = Field(
        5.0,
        ge=1.5,  # Retry-After in whole seconds is rounded up, and the way takes a while too
        description="how long a slot promised by Retry-After is kept for the one who was told to wait",
    )
    guided_requests: int | None = Field(
        32,
        ge=1,
        le=1_000_000,
        description="guided requests (schema, grammar, forced tool) that a tenant may run at a time; null: any number",
    )
    degraded_memory_s: Seconds = Field(
        600.0, description="without Redis, keys seen in this time go on under a local limit; others get 503"
    )


class Usage(Group):
    """The gateway writes one usage record for each request, and billing reads it: docs/usage.md."""

    keep_days: float = Field(
        7.0,
        gt=0,
        le=36_500,
        description="how long a usage record is kept once all consumer groups have acknowledged it",
    )


class Timeouts(Group):
    """These are all timeouts towards clients and towards engines."""

    keep_alive_s: Seconds = Field(
        75.0,
        description="a client's connection without a request is closed after so long; "
        "above the 60 s of common load balancers, which must be the ones to close",
    )
    head_s: Seconds = Field(10.0, description="from the first byte of a request's head to its last; past it 408")
    body_s: Seconds = Field(60.0, description="for a request's body to arrive; past it 408")
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
    drain_s: Seconds = Field(
        60.0, description="after SIGTERM: how long running streams may go on; new requests are refused near its end"
    )
    retries: int = Field(2, ge=0, le=1000, description="further attempts before the first byte, where it is safe")

    @property
    def parting_s(self) -> float:
        """In a drain, an idle connection is kept so long, because a request may be on its way."""
        return min(_PARTING_S, self.keep_alive_s, self.drain_s / 2)

    @property
    def refuse_s(self) -> float:
        """No request is let in so long before the end of a drain, because it would be cut."""
        return min(_REFUSE_S, self.drain_s / 2)


_PARTING_S = 6.0  # the OpenAI SDK for Python uses no connection again that has been idle for 5 s
_REFUSE_S = 30.0


class Bodies(Group):
    """These settings bound what request bodies cost a process. How large one may be is `max_body_bytes`."""

    unfinished_bytes: int = Field(
        128 * 1024 * 1024,
        ge=0,
        description="memory for bodies that have not come whole yet, of which one tenant gets half; at least twice "
        "`max_body_bytes`",
    )
    wait_s: Seconds = Field(10.0, description="how long a body waits for that memory before its request gets 503")
    max_values: int = Field(
        500_000, ge=1000, description="JSON values and member names in one body, token ids included; more get 413"
    )
    max_words: int = Field(
        256, ge=1, description="entries of `stop`, and of `bad_words`; an engine compares each with every token"
    )


class Guided(Group):
    """These settings bound what one request asks of guided decoding; more gets 400: docs/configuration.md."""

    bytes: int = Field(65_536, ge=1, description="bytes of one schema, grammar, regular expression or list of choices")
    tools: int = Field(256, ge=1, description="tools of one request")
    tools_bytes: int = Field(262_144, ge=1, description="bytes of all tools of a request together, as JSON")
    depth: int = Field(64, ge=1, le=500, description="levels of JSON in one schema")
    values: int = Field(1_000, ge=1, description="choices and entries of enums, all of a request together")
    properties: int = Field(
        3_000, ge=1, description="properties, definitions and alternatives of schemas, all of a request together"
    )
    object_properties: int = Field(300, ge=1, description="properties of one object in a schema")
    places: int = Field(
        1_024, ge=1, description="places where many characters may stand, in patterns and strings of limited length"
    )

    @cached_property
    def bounds(self) -> GuidedBounds:
        return GuidedBounds(**self.model_dump())


_ORIGIN = re.compile(r"https?://[^/\s?#@*]+")


class Cors(Group):
    """These settings name the web pages that may call the gateway from a browser: docs/adr/0016-browsers.md."""

    origins: tuple[str, ...] = Field(
        (), description="origins of those pages, as https://chat.example.com, or `*` for every one; empty: no page may"
    )

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: scheme, host and port alone, as https://chat.example.com")
        return origins


class Failover(Group):
    """When an engine breaks off in mid-stream, another one goes on from the same token: docs/failover.md."""

    enabled: bool = Field(True, description="off: a broken stream gets the error frame at once")
    attempts: int = Field(8, ge=1, le=1000, description="engines asked in a row without a new token")
    budget_s: Seconds = Field(30.0, description="time without an engine, per break")
    spread_s: Seconds = Field(0.25, description="streams that break together go on spread over so long")


class Adapter(Group):
    """The engines have loaded this LoRA adapter. For clients it is a model of its own."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="clients call it <model id>:<name>")
    id: Name | None = Field(None, description="what clients call it before all, if something else")
    upstream_model: Text | None = Field(
        None, description="the engine's own name for it, if not <the model's>:<name>; vLLM's --lora-modules gives it"
    )

    def names(self, model: Model) -> tuple[str, ...]:
        """Lists the names of the adapter: its id, and then its aliases."""
        own = tuple(f"{name}:{self.name}" for name in (model.id, *model.aliases))
        return own if self.id is None else (self.id, *own)


class Model(Group):
    """One model and the engines that serve it."""

    id: Name = Field(description="the name that clients use")
    aliases: tuple[Name, ...] = Field((), description="further names for it, without commas")
    upstreams: tuple[BaseUrl, ...] = Field(
        min_length=1, description="base URLs, with or without `/v1`; /v1/chat/completions is appended"
    )
    upstream_model: Text | None = Field(None, description="the engine's own name for it, if not `id`")
    api_key: Secret = Field(None, description="sent to the engine as its bearer token, never the caller's key")
    dialect: Literal["vllm", "openai"] = Field(
        "vllm",
        description="vllm: asks for token ids, so that a cut stream is billed exactly; openai: only standard fields",
    )
    max_model_len: Tokens | None = Field(
        None, description="tokens of prompt and answer together; asked of the engine when a broken stream needs it"
    )
    adapters: tuple[Adapter, ...] = Field((), description="LoRA adapters, each a model of its own")
    cache_salt: Literal["tenant", "key", "none"] = Field(
        "tenant", description="who shares the engines' prefix cache: a tenant's keys, one key, or all callers"
    )
    unknown_fields: Literal["pass", "refuse"] = Field(
        "pass", description="request fields that the gateway does not know: passed to the engine, or a 400"
    )
    allowed_fields: tuple[str, ...] = Field(
        (), description="request fields that callers may set although they are the platform's or reach into the engine"
    )
    allowed_media_domains: tuple[MediaDomain, ...] = Field(
        (), description="whose images, audio and video may be named by URL; without any, only `data:` URLs are taken"
    )

    @field_validator("allowed_fields")
    @classmethod
    def _reserved(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in RESERVED:
                raise ValueError(f"{name!r} is no field that is kept from callers")
        return names


class Kubernetes(Group):
    """The gateway serves the Models of a cluster beside those of `models`: docs/kubernetes.md."""

    enabled: bool = Field(False, description="serve the Model resources of a cluster too")
    namespaces: tuple[str, ...] = Field((), description="whose Models are served; empty: all of the cluster")
    label_selector: str = Field("", description="only Models with these labels, as `tier=production`")
    kubeconfig: Path | None = Field(
        None,
        description="how to reach the API server, by certificate, token or tokenFile; without it the service account "
        "of the gateway's pod",
    )
    context: str | None = Field(None, description="the context of the kubeconfig; without it its current one")
    cache_file: Path | None = Field(
        None, description="the last known Models, for a gateway that starts while the API server is away"
    )
    start_wait_s: Seconds = Field(
        10.0, description="how long a start waits for the Models; past it what is known otherwise is served"
    )
    timeout_s: Seconds = Field(10.0, description="one question to the API server")
    resync_s: Seconds = Field(1800.0, description="how often all Models are listed anew, beside the watch")
    wake_wait_s: float = Field(
        300.0, ge=0, le=1e9, description="how long a stream waits, with heart-beats, for a Model that it wakes"
    )
    wake_wait_whole_s: float = Field(
        45.0,
        ge=0,
        le=1e9,
        description="the same for answers in one piece, which have no heart-beats; idle proxies cut at 60 s",
    )
    endpoint_wait_s: float = Field(
        60.0,
        ge=0,
        le=1e9,
        description="how long a request waits for a Model that has lost its last pod; a whole answer waits "
        "`wake_wait_whole_s` at most",
    )
    engine_addresses: Literal["pods", "service"] = Field(
        "pods",
        description="where requests go: to the ready pods of a Model, or to its Service, for meshes that need that",
    )
    service_connection_s: Seconds = Field(
        15.0, description="a connection to a Service takes no new request after so long: it stays with one pod"
    )
    wake_again_s: Seconds = Field(10.0, description="a Model that still sleeps is asked for anew after so long")
    in_use_every_s: float = Field(
        45.0,
        gt=0,
        le=55,
        description="how often a Model that may sleep is marked as in use; controllers let a minute pass",
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

    @field_validator("label_selector")
    @classmethod
    def _selector(cls, selector: str) -> str:
        if selector and not re.fullmatch(rf"{_REQUIREMENT}(,{_REQUIREMENT})*", selector):
            raise ValueError(f"{selector!r} is no label selector, as `tier=production,region in (eu,us)`")
        return selector


class Telemetry(Group):
    """The gateway tells this of itself by OpenTelemetry's protocol: docs/observability.md."""

    traces: Traces = Traces()
    metrics: Metrics = Metrics()
    logs: Logs = Logs()


class Settings(Group):
    """The settings of the gateway."""

    listen: Listen = Listen()
    redis: Redis = Redis()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    failover: Failover = Failover()
    usage: Usage = Usage()
    models: tuple[Model, ...] = Field(
        (), description="the models to serve; at least one, unless `kubernetes.enabled` is set"
    )
    kubernetes: Kubernetes = Kubernetes()
    bodies: Bodies = Bodies()
    cors: Cors = Cors()
    guided: Guided = Guided()
    max_body_bytes: int = Field(10 * 1024 * 1024, ge=1024, description="larger request bodies get 413")
    max_answer_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        description="larger answers in one piece get 502; streams may be longer, but not one of their events, which "
        "never has more than 16 MiB",
    )
    cache_salt_secret: Secret = Field(
        None,
        description="what the salts of models[].cache_salt are made with; without it a random one that Redis keeps",
    )
    telemetry: Telemetry = Telemetry()
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="JSON lines on stderr")

    @field_validator("cache_salt_secret")
    @classmethod
    def _not_guessed(cls, secret: str | None) -> str | None:
        if secret is not None and len(secret) < 16:
            raise ValueError("it has fewer than 16 characters")
        return secret

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


def parse(text: str, *, source: str = "configuration") -> Settings:
    """Reads the settings in a text. Raises ConfigError, with one line for each bad field."""
    return loader.parse(Settings, text, source=source)


def load(path: Path) -> Settings:
    """Reads the settings of a file. Raises ConfigError."""
    settings = loader.load(Settings, path)
    if settings.redis.url is None:
        _refuse_a_store_left_behind(path, settings.redis.data_dir)
        return settings
    url = redis_address.anchored(settings.redis.url, path.absolute().parent)
    return settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})


def _refuse_a_store_left_behind(path: Path, data_dir: Path) -> None:
    """Refuses to start on an empty store where the keys lie in the folder of before, which would refuse every key.

    Up to version 0.1 `data_dir` was relative to the current directory.

    Raises ConfigError.
    """
    try:
        given = parse(path.read_text("utf-8"), source=str(path)).redis.data_dir
        before = Path(os.path.abspath(given))
        there = (before / _DATA_OF_VALKEY).is_dir() and not (data_dir / _DATA_OF_VALKEY).exists()
    except OSError:  # no store can be seen from here, so none was kept here
        return
    if there and not given.is_absolute():
        raise ConfigError(
            f"{path}:\n  redis.data_dir: it is relative to this file now, and no longer to the current directory. "
            f"The keys lie in {before}: move that folder to {data_dir}, or set redis.data_dir: {before}"
        )


__all__ = ["ConfigError", "Settings", "load", "parse"]
