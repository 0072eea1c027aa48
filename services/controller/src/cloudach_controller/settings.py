"""These classes hold every setting of the controller, with its unit, its default and the reason for it.

`cloudach_service.settings` reads them from one file.
docs/reference/settings.md is made from these classes by `make settings-docs`.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from cloudach_model_api.engine import Toleration
from cloudach_model_api.names import GPU_TYPE_LABEL
from cloudach_service import settings as loader
from cloudach_service.settings import ConfigError, Group, Host, Port, Seconds, base_url
from pydantic import AfterValidator, Field, model_validator

_LABEL_NAME = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"

ObjectName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
"""Kubernetes accepts this as the name of a Secret or a Lease."""
Namespace = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
Image = Annotated[str, Field(pattern=r"^[^\s]+$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|e[0-9]+)?$")]

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]
VariableText = Annotated[str, Field(pattern=r"^[^\x00]*$")]


def _url_with(*names: str) -> Callable[[str], str]:
    known = ", ".join(f"{{{name}}}" for name in names[:-1]) + f" and {{{names[-1]}}}"

    def checked(template: str) -> str:
        try:
            url = template.format(**dict.fromkeys(names, "x"))
        except (KeyError, ValueError, IndexError, AttributeError):
            raise ValueError(f"only {known} are known") from None
        base_url(url)
        return template.rstrip("/")

    return checked


ModelUrl = Annotated[str, AfterValidator(_url_with("name", "namespace"))]
ClusterUrl = Annotated[str, AfterValidator(_url_with("name", "namespace", "cluster", "head"))]


Peers = tuple[dict[str, Any], ...]
"""Peers are written as in `from` or `to` of a NetworkPolicy."""


class Listen(Group):
    """These settings say where /healthz, /readyz and /metrics are served."""

    host: Host = Field("127.0.0.1", description="the address to listen on")
    port: Port = Field(8080, description="0: a free one, printed at start")


class Kubernetes(Group):
    """These settings say how the controller reaches the API server, and whose Models it serves."""

    kubeconfig: Path | None = Field(
        None, description="for runs outside a cluster; empty: the pod's service account, or else $KUBECONFIG"
    )
    namespaces: tuple[Namespace, ...] = Field(
        (), description="namespaces whose Models are served; empty: all namespaces"
    )
    timeout_s: Seconds = Field(15.0, description="deadline of one request to the API server")
    resync_s: Seconds = Field(60.0, description="pause between two looks at a Model for which no other look is planned")
    workers: int = Field(4, ge=1, le=1000, description="Models worked on at the same time")
    retry_max_s: Seconds = Field(30.0, description="a Model that fails is tried again after 0.2 s, doubled up to this")


class LeaderElection(Group):
    """Several controllers may run, and the one that holds the Lease works."""

    enabled: bool = Field(
        True, description="off: the controller works without a Lease; never run two controllers like that"
    )
    namespace: Namespace = Field("default", description="the Lease's namespace")
    name: ObjectName = Field("cloudach-controller", description="the Lease's name")
    duration_s: int = Field(
        15, ge=2, le=86_400, description="a leader that has not renewed its Lease for this time is replaced"
    )
    renew_s: Seconds = Field(
        10.0, description="a leader that cannot renew its Lease for this time stops; less than duration_s"
    )
    retry_s: Seconds = Field(2.0, description="pause between two tries to get or renew the Lease; less than renew_s")

    @model_validator(mode="after")
    def _in_order(self) -> LeaderElection:
        if not self.retry_s < self.renew_s < self.duration_s:
            raise ValueError("retry_s < renew_s < duration_s must hold")
        return self


class Inference(Group):
    """These settings say what the engines' pods are made of."""

    image: Image = Field(
        "ghcr.io/cloudach/inference:0.2.0", description="the image of Ray's pods, unless a Model names one"
    )
    ray_version: str = Field(
        "2.60.0",
        pattern=r"^[0-9][0-9A-Za-z.+-]*$",
        description="the version of Ray in that image; KubeRay asks for it",
    )
    gpu_type_label: str = Field(
        GPU_TYPE_LABEL, pattern=_LABEL_NAME, description="node label that a Model's gpu.type is compared with"
    )
    head_cpu: Quantity = Field("1", description="CPU request of the head pod, which runs no engine")
    head_memory: Quantity = Field("4Gi", description="memory request and limit of the head pod")
    head_node_selector: dict[str, str] = Field(
        default_factory=dict, description="labels that a node must have for head pods"
    )
    head_tolerations: tuple[Toleration, ...] = Field((), description="taints of nodes that head pods tolerate")
    head_with_model: bool = Field(
        False, description="head pods follow their Model's nodeSelector, tolerations and affinity, but not gpu.type"
    )
    autoscaler_cpu: Quantity = Field("200m", description="CPU request of Ray's autoscaler, beside the head in its pod")
    autoscaler_memory: Quantity = Field("512Mi", description="memory request and limit of Ray's autoscaler")
    worker_cpu: Quantity = Field("2", description="CPU request of a worker pod, where the Model gives none")
    worker_memory: Quantity = Field("8Gi", description="memory request of a worker pod, where the Model gives none")
    shared_memory: Quantity = Field(
        "8Gi", description="size limit of /dev/shm, through which the processes of an engine on several GPUs talk"
    )
    worker_idle_s: int = Field(
        60, ge=1, le=10**9, description="a worker pod without a replica is removed after this time"
    )
    env: dict[VariableName, VariableText] = Field(
        default_factory=dict, description="further environment variables of all Ray pods"
    )
    engine_keys: bool = Field(
        True, description="each Model's engines ask for a key that only gateways have; off: new pods ask for none"
    )
    automount_service_account_token: bool = Field(
        False, description="mount the service account's token into worker pods; only what asks the API server needs it"
    )


class Ray(Group):
    """These settings say how the controller deals with Ray's clusters and their dashboards."""

    token_secret: ObjectName = Field(
        "cloudach-ray-token",
        description="Secret, one in each namespace, whose entry auth_token locks Ray's dashboard; made where missing",
    )
    token_auth: bool = Field(True, description="off: anyone who reaches port 8265 of a head controls that cluster")
    token_per_model: bool = Field(
        True, description="new clusters have a token of their Model's own; off: they have that of token_secret"
    )
    stream_limit_s: int = Field(
        960,
        ge=1,
        le=10**9,
        description="the longest stream; old clusters and ingress processes stay this long; above the gateway's limit",
    )
    gcs_redis_address: str | None = Field(
        None,
        pattern=r"^(rediss?://)?[^\s:/@]+:[0-9]{1,5}$",
        description="host:port of a Redis that keeps Ray's state through a lost head; not the limiter's Redis",
    )
    gcs_redis_secret: ObjectName | None = Field(None, description="Secret in the Models' namespaces; entry `password`")
    dashboard_url: ClusterUrl = Field(
        "http://{head}.{namespace}.svc:8265",
        description="Ray's dashboard; {head}: head service of the active {cluster}; {name}, {namespace}: the Model's",
    )
    endpoint_url: ModelUrl = Field(
        "http://{name}-serve-svc.{namespace}.svc:8000", description="base URL of a Model's engines, for the gateway"
    )
    timeout_s: Seconds = Field(5.0, description="deadline of one request to the dashboard")
    kuberay_late_s: Seconds = Field(
        60.0, description="a change on which KubeRay has not acted for this time is reported as KubeRayBehind"
    )
    poll_s: Seconds = Field(2.0, description="pause between two looks at a Model on its way")
    steady_poll_s: Seconds = Field(15.0, description="pause between two looks at a Model that is as it should be")
    polls_per_s: Annotated[float, Field(gt=0)] = Field(
        10.0,
        description="most looks per second at all Models at rest together; with many Models the pauses grow",
    )
    drain_margin_s: Seconds = Field(
        60.0, description="time that Serve gets to stop a deleted Model after drainSeconds; then the pods are deleted"
    )


class GcsStore(Group):
    """This store keeps Ray's state, so that a lost head breaks nothing. Each Model has a user in it."""

    address: str | None = Field(
        None,
        pattern=r"^[^\s:/@]+:[0-9]{1,5}$",
        description="host:port of a Valkey or Redis that holds nothing else; ray.gcs_redis_address goes before it",
    )
    password_file: Path = Field(
        Path("/etc/cloudach-gcs-store/password"), description="file with the password of the store's user `default`"
    )
    pods: Peers = Field((), description="the store's pods, as `to` of a NetworkPolicy; empty: its port at any address")
    new_clusters: bool = Field(True, description="off: new clusters do not use the store; clusters that use it keep it")
    timeout_s: Seconds = Field(5.0, description="deadline of one request to the store")
    poll_s: Seconds = Field(5.0, description="pause between two looks at the store")


_PRIVATE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
    *("fc00::/7", "fe80::/10", "ff00::/8"),
)


def _network(block: str) -> str:
    ip_network(block)
    return block


Cidr = Annotated[str, AfterValidator(_network)]


class NetworkPolicy(Group):
    """The controller makes policies for each Model: who reaches its engines' pods, and what these reach."""

    enabled: bool = Field(False, description="off: none are made, and every pod of the cluster reaches the engines")
    gateways: Peers = Field((), description="who may ask the engines, as `from` of a NetworkPolicy")
    controllers: Peers = Field((), description="who may ask Ray's dashboard; this controller has to be among them")
    kuberay: Peers = Field((), description="where KubeRay's operator runs")
    metrics: Peers = Field((), description="who may read Ray's metrics")
    extra_ingress: tuple[dict[str, Any], ...] = Field((), description="further NetworkPolicyIngressRules")
    egress: bool = Field(True, description="off: pods reach everything, also the cloud's metadata service")
    also_closed: tuple[Cidr, ...] = Field(
        (), description="ranges that are not the internet, beside the private ones: such as public addresses of pods"
    )
    api_server: tuple[dict[str, Any], ...] = Field(
        (), description="NetworkPolicyEgressRules by which the autoscaler in a head reaches the API server"
    )
    extra_egress: tuple[dict[str, Any], ...] = Field((), description="further NetworkPolicyEgressRules of all pods")

    @property
    def closed(self) -> tuple[str, ...]:
        """From these ranges neither weights nor media by URL are fetched."""
        return (*_PRIVATE, *self.also_closed)


class Rollout(Group):
    """These settings say how changes of a Model reach its pods."""

    replacement: Literal["ask", "at_once"] = Field(
        "ask",
        description="changes that take a second set of pods; ask: they wait for cloudach.dev/allow-replacement",
    )
    progress_deadline_s: Seconds = Field(
        1800.0,
        description="a change without a step for this time gets ProgressDeadlineExceeded; nothing is rolled back",
    )
    disruption_budgets: bool = Field(
        True,
        description="Models with two or more replicas lose one pod at a time to evictions; off: no budgets are made",
    )


class Settings(Group):
    """All settings of the controller are here."""

    listen: Listen = Listen()
    kubernetes: Kubernetes = Kubernetes()
    leader_election: LeaderElection = LeaderElection()
    inference: Inference = Inference()
    ray: Ray = Ray()
    gcs_store: GcsStore = GcsStore()
    network_policy: NetworkPolicy = NetworkPolicy()
    rollout: Rollout = Rollout()
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="JSON lines on stderr")


def parse(text: str, *, source: str = "configuration") -> Settings:
    """Reads the settings in a text. Raises ConfigError, with one line for each bad field."""
    return loader.parse(Settings, text, source=source)


def load(path: Path) -> Settings:
    """Reads the settings of a file. Raises ConfigError."""
    return loader.load(Settings, path)


__all__ = ["ConfigError", "Settings", "load", "parse"]
