"""Every setting of the controller: unit, default and why. Read from one YAML file; bad ones are refused at start.

`cloudach-controller --help` lists them all, made from these descriptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cloudach_model_api.names import GPU_TYPE_LABEL
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Seconds = Annotated[float, Field(gt=0)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(_Group):
    """/healthz, /readyz and /metrics."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="0: a free one, printed at start")


class Kubernetes(_Group):
    kubeconfig: Path | None = Field(
        None, description="for runs outside a cluster; empty: the pod's service account, or else $KUBECONFIG"
    )
    namespaces: tuple[str, ...] = Field((), description="whose Models are served; empty: all namespaces")
    timeout_s: Seconds = Field(15.0, description="one request to the API server")
    resync_s: Seconds = Field(60.0, description="every Model is looked at again so often, whatever was seen to change")
    workers: int = Field(4, ge=1, description="Models worked on at the same time")
    retry_max_s: Seconds = Field(30.0, description="a Model that fails is tried again after 0.2 s, doubled up to this")


class LeaderElection(_Group):
    """Several controllers may run; the one with the Lease works."""

    enabled: bool = Field(True, description="off: it works without a Lease; never run two like that")
    namespace: str = Field("default", description="of the Lease")
    name: str = Field("cloudach-controller", description="of the Lease")
    duration_s: int = Field(15, ge=2, description="a leader that was not heard of for so long is replaced")
    renew_s: Seconds = Field(10.0, description="a leader that cannot renew for so long stops; less than duration_s")
    retry_s: Seconds = Field(2.0, description="pause between two tries; less than renew_s")


class Inference(_Group):
    """What the engines' pods are made of."""

    image: str = Field("ghcr.io/cloudach/inference:0.2.0", description="of Ray's pods, unless a Model names its own")
    ray_version: str = Field("2.60.0", description="of that image; KubeRay wants to know")
    gpu_type_label: str = Field(GPU_TYPE_LABEL, description="node label that a Model's gpu.type is compared with")
    head_cpu: str = Field("1", description="CPU request of the head pod, which runs no engine")
    head_memory: str = Field("4Gi", description="memory request and limit of the head pod")
    worker_cpu: str = Field("2", description="CPU request of a worker pod, where the Model gives none")
    worker_memory: str = Field("8Gi", description="memory request of a worker pod, where the Model gives none")
    shared_memory: str = Field("8Gi", description="size limit of /dev/shm, which engines on several GPUs talk through")
    worker_idle_s: int = Field(60, ge=1, description="a worker pod without a replica goes after so long")
    env: dict[str, str] = Field(default_factory=dict, description="further environment variables of all Ray pods")


class Ray(_Group):
    token_secret: str = Field(
        "cloudach-ray-token",
        description="Secret, one in each namespace, whose entry auth_token locks Ray's dashboard; made where missing",
    )
    token_auth: bool = Field(True, description="off: whoever reaches port 8265 of a head rules that cluster")
    stream_limit_s: int = Field(
        960,
        ge=1,
        description="the longest stream: old clusters and ingress processes stay so long; above the gateway's",
    )
    gcs_redis_address: str | None = Field(
        None, description="host:port of a Redis that keeps Ray's state through a lost head; not the limiter's Redis"
    )
    gcs_redis_secret: str | None = Field(None, description="Secret in the Models' namespaces; entry `password`")
    dashboard_url: str = Field(
        "http://{name}-head-svc.{namespace}.svc:8265",
        description="Ray's dashboard of a Model; {name} and {namespace} are the Model's",
    )
    endpoint_url: str = Field(
        "http://{name}-serve-svc.{namespace}.svc:8000", description="base URL of a Model's engines, for the gateway"
    )
    timeout_s: Seconds = Field(5.0, description="one request to the dashboard")
    poll_s: Seconds = Field(2.0, description="pause between two looks at a Model on its way")
    steady_poll_s: Seconds = Field(15.0, description="pause between two looks at a Model that is as it should be")
    drain_margin_s: Seconds = Field(
        60.0, description="a deleted Model's pods go at the latest so long after its drainSeconds, for Serve to stop"
    )


class Rollout(_Group):
    replacement: Literal["ask", "at_once"] = Field(
        "ask",
        description="changes that take a second set of pods: ask waits for cloudach.dev/allow-replacement",
    )


class Settings(_Group):
    listen: Listen = Listen()
    kubernetes: Kubernetes = Kubernetes()
    leader_election: LeaderElection = LeaderElection()
    inference: Inference = Inference()
    ray: Ray = Ray()
    rollout: Rollout = Rollout()
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="JSON lines on stderr")


class ConfigError(Exception):
    """The configuration cannot be used; the message says which field and why."""


def parse(text: str, *, source: str = "configuration") -> Settings:
    """Raises ConfigError, with one line for each bad field."""
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping of settings")
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{source}:\n" + "\n".join(lines)) from error
    election = settings.leader_election
    if not election.retry_s < election.renew_s < election.duration_s:
        raise ConfigError(f"{source}:\n  leader_election: retry_s < renew_s < duration_s must hold")
    for name in ("dashboard_url", "endpoint_url"):
        try:
            getattr(settings.ray, name).format(name="x", namespace="y")
        except (KeyError, ValueError, IndexError) as error:
            raise ConfigError(f"{source}:\n  ray.{name}: only {{name}} and {{namespace}} are known") from error
    return settings


def load(path: Path) -> Settings:
    """Raises ConfigError."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return parse(text, source=str(path))


def described() -> str:
    """All settings with their defaults, as YAML with comments."""
    lines: list[str] = []
    for group, field in Settings.model_fields.items():
        value = field.default
        if not isinstance(value, _Group):
            lines.append(f"{group}: {_yaml(value)}  # {field.description}")
            continue
        lines.append(f"{group}:" + (f"  # {' '.join(value.__doc__.split())}" if value.__doc__ else ""))
        for name, inner in type(value).model_fields.items():
            lines.append(f"  {name}: {_yaml(getattr(value, name))}  # {inner.description}")
    return "\n".join(lines)


def _yaml(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).replace("\n...", "").strip()
