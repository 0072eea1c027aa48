"""An operator asks for a Model with these types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from .affinity import Affinity
from .engine import Engine, Gpu, Resources, Toleration, in_cel, spellings
from .part import Part, Rule, left_out, list_map, text
from .source import AdapterSource, ObjectName, SecretReference, Source

ModelId = Annotated[
    str,
    text(
        r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
        "must begin with a letter or a digit, and hold letters, digits, ., _, :, / and - alone",
        least=1,
        most=128,
    ),
]
LabelValue = Annotated[str, Field(max_length=63)]


def _unique(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(set(listed)) == len(listed)


class Autoscaling(Part):
    """Replicas follow the requests in flight. The bounds hold for `kubectl scale` too."""

    min_replicas: Annotated[int, Field(ge=0)] = 1
    """The fewest replicas. With 0 the Model sleeps when no request comes for `idleSeconds`, and the next request wakes
    it."""
    max_replicas: Annotated[int, Field(ge=1)]
    """The most replicas. The cluster needs GPUs for all of them."""
    target_ongoing_requests: Annotated[int, Field(ge=1)] = 32
    """Requests in flight that one replica should have. Beyond that another replica is started."""
    idle_seconds: Annotated[int, Field(ge=10)] = 600
    """Seconds without a request before the Model sleeps. It counts only with minReplicas 0."""
    upscale_delay_seconds: Annotated[int, Field(ge=0)] = 15
    """Seconds for which more replicas must be wanted before more are started."""
    downscale_delay_seconds: Annotated[int, Field(ge=0)] = 300
    """Seconds for which fewer replicas must suffice before some are stopped."""

    rules = (
        Rule(
            "maxReplicas must not be less than minReplicas",
            "self.minReplicas <= self.maxReplicas",
            lambda it: it.min_replicas <= it.max_replicas,
            ".maxReplicas",
        ),
    )


class Adapter(Part):
    """It is one LoRA adapter. Clients see it as a model of its own, `<model id>:<name>`."""

    name: Annotated[
        str,
        text(
            r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
            "must begin with a letter or a digit, and hold letters, digits, ., _ and - alone: set id for other names",
            most=63,
        ),
    ]
    """Clients add this name to the model's id or to one of its aliases, after a colon."""
    id: ModelId | None = None
    """The main name for clients. The default is `<model id>:<name>`. A new id disturbs no engine."""
    source: AdapterSource
    """Set exactly one of huggingFace, pvc, objectStore, image and simulator, as in `spec.source`. The folder holds
    `adapter_config.json` and the weights, as PEFT writes them. Adapters of a simulator have `simulator`, and no others
    have. Credentials that are not named here are those of `spec.source`."""


class Lora(Part):
    """It lists LoRA adapters over the model's weights."""

    adapters: Annotated[tuple[Adapter, ...], Field(min_length=1, max_length=64, json_schema_extra=list_map("name"))]
    """Every replica loads all of them at its start. Another list restarts replicas one by one."""
    max_rank: Annotated[int, Field(ge=1, le=512)] | None = None
    """The largest rank that the engine makes room for (vLLM's max_lora_rank, rounded up to one that it knows). The
    default is that of the largest adapter."""
    max_loaded: Annotated[int, Field(ge=1, le=64)] | None = None
    """Adapters that one batch may mix (vLLM's max_loras). Each takes GPU memory, and requests for further ones wait.
    The default is all of them, up to 8."""

    rules = (
        Rule("names must differ", None, lambda it: _unique(a.name for a in it.adapters), ".adapters"),
        Rule(
            "adapters must not have the same id",
            "self.adapters.all(a, !has(a.id) || self.adapters.exists_one(b, has(b.id) && b.id == a.id))",
            lambda it: _unique(a.id for a in it.adapters if a.id is not None),
            ".adapters",
        ),
    )

    @property
    def loaded_at_once(self) -> int:
        """Returns how many adapters one batch may mix."""
        return self.max_loaded or min(len(self.adapters), 8)


_CACHE_IS_ON = " && ".join(
    f"(!has(self.engine.args.{field}) || self.engine.args.{field})"
    for field in map(in_cel, spellings("enable_prefix_caching"))
)

Routing = Literal["balanced", "prefixAware", "kvAware"]
CacheSalt = Literal["tenant", "key", "none"]
UnknownFields = Literal["pass", "refuse"]
FieldName = Annotated[
    str,
    text(
        r"^[a-z][a-z0-9_]*$",
        "must be the name of a request's field: lower-case letters, digits and _, as priority",
        most=63,
    ),
]
MediaDomain = Annotated[
    str,
    text(
        r"^(\*|[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*(:[0-9]{1,5})?)$",
        "must be a host in lower case, as images.example.com or images.example.com:8080, or *; no scheme and no path",
        most=253,
    ),
]


class ModelSpec(Part):
    id: ModelId | None = None
    """The name that clients use. The default is the resource's own name. A new id disturbs no engine."""
    aliases: Annotated[
        tuple[ModelId, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Further names that clients may use."""
    source: Source
    engine: Engine = Engine()
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """The most tokens of prompt and answer together. The default is the model's own limit."""
    gpu: Gpu = Gpu()
    resources: Resources = Resources()
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Labels that the nodes of worker pods must have."""
    tolerations: Annotated[
        tuple[Toleration, ...], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """Taints of nodes that the worker pods tolerate."""
    affinity: Affinity | None = None
    """The affinity of the worker pods, as Kubernetes defines it."""
    service_account_name: ObjectName | None = None
    """The service account of the Ray pods. The default is the namespace's `default`."""
    image_pull_secrets: Annotated[
        tuple[SecretReference, ...], Field(max_length=8, json_schema_extra=list_map("name"))
    ] = ()
    """Secrets of the Model's namespace that open a private registry."""
    image: (
        Annotated[str, text(r"^[^\s]+$", "must be an image's name, without white space", least=1, most=512)] | None
    ) = None
    """The engine's image, instead of the controller's default. Ray and vLLM in it must fit this release."""
    replicas: Annotated[int, Field(ge=0)] = 1
    """Wanted replicas. `kubectl scale` and an HPA write this field. The autoscaler begins here, and goes on from here
    when the field is changed by hand. With 0 no replica runs, and no request wakes the Model."""
    autoscaling: Autoscaling | None = None
    routing: Routing = "balanced"
    """How a replica is chosen for a request. `balanced` takes one after the other. `prefixAware` takes one that has
    seen the same beginning. `kvAware` takes one whose cache holds most of the prompt, as its engine reports."""
    drain_seconds: Annotated[int, Field(ge=0, le=7200)] = 60
    """Seconds for which the streams of a replica that is to go may run on. Then they move to another one."""
    lora: Lora | None = None
    cache_salt: Annotated[CacheSalt, Field(json_schema_extra=left_out)] = "tenant"
    """The callers that share the engines' prefix cache. With `tenant`, the default, the keys of one tenant share it.
    With `key` each key has its own. With `none` all callers share it, and can tell by the TTFT what others have
    asked."""
    unknown_fields: Annotated[UnknownFields, Field(json_schema_extra=left_out)] = "pass"
    """How the gateway treats request fields that it does not know. `pass`, the default, hands them to the engine.
    `refuse` answers with a 400."""
    allowed_fields: Annotated[
        tuple[FieldName, ...], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Request fields that callers may set although they are the platform's, or reach into the engine, as `priority` and
    `chat_template`."""
    allowed_media_domains: Annotated[
        tuple[MediaDomain, ...], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Hosts from which the engine fetches images, audio and video by URL, as `images.example.com`. Without any, callers
    send media as `data:` URLs. `*` allows all hosts, also names that lead into the cluster's network."""

    rules = (
        Rule("names must differ", None, lambda it: _unique(it.aliases), ".aliases"),
        Rule("names must differ", None, lambda it: _unique(it.allowed_fields), ".allowedFields"),
        Rule("names must differ", None, lambda it: _unique(it.allowed_media_domains), ".allowedMediaDomains"),
        Rule("names must differ", None, lambda it: _unique(e.name for e in it.engine.env), ".engine.env"),
        Rule("names must differ", None, lambda it: _unique(s.name for s in it.image_pull_secrets), ".imagePullSecrets"),
        Rule(
            "resources must not hold the GPUs (gpu.resourceName): set gpu.perReplica and gpu.perPod",
            "!has(self.resources) || ("
            "(!has(self.resources.requests) || !(self.gpu.resourceName in self.resources.requests)) && "
            "(!has(self.resources.limits) || !(self.gpu.resourceName in self.resources.limits)))",
            lambda it: it.gpu.resource_name not in {*it.resources.requests, *it.resources.limits},
            ".resources",
        ),
        Rule(
            "a simulator uses no GPU: leave gpu out",
            "!has(self.source.simulator) || !has(self.gpu.perReplica) || self.gpu.perReplica == 0",
            lambda it: it.source.simulator is None or not it.gpu.per_replica,
            ".gpu",
        ),
        Rule(
            "source.image needs the image that holds the weights: set image",
            "!has(self.source.image) || has(self.image)",
            lambda it: it.source.image is None or it.image is not None,
            ".image",
        ),
        Rule(
            "prefixAware and kvAware need vLLM's prefix cache and its tokens: they do not go with a simulator",
            "self.routing == 'balanced' || !has(self.source.simulator)",
            lambda it: it.routing == "balanced" or it.source.simulator is None,
            ".routing",
        ),
        Rule(
            "prefixAware and kvAware need vLLM's prefix cache: remove engine.args.enable_prefix_caching: false",
            f"self.routing == 'balanced' || !has(self.engine) || !has(self.engine.args) || ({_CACHE_IS_ON})",
            lambda it: it.routing == "balanced" or it.engine.given("enable_prefix_caching") is not False,
            ".routing",
        ),
        Rule(
            "an adapter's source.image needs the image that holds it: set image",
            "!has(self.lora) || has(self.image) || self.lora.adapters.all(a, !has(a.source.image))",
            lambda it: it.image is not None or all(a.source.image is None for a in it.adapters),
            ".image",
        ),
        Rule(
            "adapters of a simulator have the source simulator, and no others have",
            "!has(self.lora) || self.lora.adapters.all(a, has(a.source.simulator) == has(self.source.simulator))",
            lambda it: all((a.source.simulator is None) == (it.source.simulator is None) for a in it.adapters),
            ".lora.adapters",
        ),
        Rule(
            "replicas must lie within autoscaling.minReplicas and autoscaling.maxReplicas: change those to go beyond",
            "!has(self.autoscaling) || !has(oldSelf.autoscaling) || self.replicas == oldSelf.replicas"
            " || (self.replicas >= self.autoscaling.minReplicas && self.replicas <= self.autoscaling.maxReplicas)",
            None,
            ".replicas",
        ),
    )

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        return self.lora.adapters if self.lora is not None else ()

    @property
    def gpus_per_replica(self) -> int:
        return 0 if self.source.simulator is not None else self.gpu.count
