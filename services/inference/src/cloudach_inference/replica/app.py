"""A Serve application is described by these values, which a plan or a Model's arguments make. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class App:
    """One Serve application. `options` are an LLMConfig's fields, or for the simulator its settings."""

    model_id: str
    slug: str
    engine: Literal["vllm", "sim"]
    replicas: int
    cpus: float  # of one replica, its actor included
    gpus: int
    drain_s: float  # of a replica that is to go
    options: dict[str, Any]
    lora: dict[str, Any] | None = None
    """The fields of `adapters.Lora`."""


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Adds to an LLMConfig's fields what every vLLM replica gets.

    It reports cached tokens, and it fetches media only from `allowed_media_domains`. Entries there are `host`,
    `host:port`, or `*` for all.
    """
    given = dict(options.get("engine_kwargs", {}))
    domains = given.pop("allowed_media_domains", None) or ()
    kwargs = {"enable_prompt_tokens_details": True, **given}
    if "*" not in domains:  # vLLM compares host names alone; its empty list would allow all, and nobody can have this
        kwargs["allowed_media_domains"] = sorted({domain.partition(":")[0] for domain in domains}) or ["none.invalid"]
    env = dict(options.get("runtime_env", {}))
    # A domain that is allowed may lead elsewhere.
    env["env_vars"] = {"VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0", **env.get("env_vars", {})}
    return {**options, "engine_kwargs": kwargs, "runtime_env": env}
