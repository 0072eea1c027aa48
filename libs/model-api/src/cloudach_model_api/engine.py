"""These types say how the engine runs, and on which nodes."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from .names import GPU_TYPE_LABEL
from .part import Part, Rule, list_map, text
from .source import ObjectName, SecretKey

OWNED_ARGS = {
    "model": "set source",
    "revision": "set source.huggingFace.revision",
    "hf_token": "set source.huggingFace.tokenSecret",
    "served_model_name": "set id and aliases",
    "host": "the platform chooses where the engine listens",
    "port": "the platform chooses where the engine listens",
    "api_key": "the platform makes the engine's key",
    "max_model_len": "set maxModelLen",
    "tensor_parallel_size": "set gpu.tensorParallel",
    "pipeline_parallel_size": "set gpu.pipelineParallel",
    "distributed_executor_backend": "the platform runs the engine on Ray",
    "enable_lora": "set lora.adapters",
    "lora_modules": "set lora.adapters",
    "max_lora_rank": "set lora.maxRank",
    "max_loras": "set lora.maxLoaded",
    "allowed_media_domains": "set allowedMediaDomains",
}
"""The platform sets these vLLM arguments itself. The values say what to do instead."""

OWNED_ENV = ("VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
OWNED_ENV_PREFIX = "RAY_"

_QUANTITY = r"^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"


_QUANTITY_ADVICE = "must be a quantity, as 4, 500m or 16Gi"


def _quantity(value: int | str) -> int | str:
    if isinstance(value, str) and not re.match(_QUANTITY, value):
        raise PydanticCustomError("quantity", "{advice}", {"advice": _QUANTITY_ADVICE})
    return value


Quantity = Annotated[
    int | str,
    AfterValidator(_quantity),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "maxLength": 64,
            "x-kubernetes-validations": [
                {"rule": f"type(self) == int || self.matches(r'{_QUANTITY}')", "message": _QUANTITY_ADVICE}
            ],
        }
    ),
]

_UNITS = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(1000)}
_UNITS |= {unit: Decimal(1000) ** power for power, unit in enumerate("MGTPE", 2)}
_UNITS |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)}


def amount(quantity: int | str) -> Decimal:
    """Returns the number that Kubernetes takes a quantity for, as 0.5 for `500m`."""
    text = str(quantity)
    unit = text.lstrip("+.0123456789")
    if unit in _UNITS:
        return Decimal(text.removesuffix(unit)) * _UNITS[unit]
    return Decimal(text)  # 4, 0.5, 1e3


def argument(spelling: str) -> str:
    """Returns the name of an argument. Operators may also write it as on vLLM's command line: `--max-num-seqs`."""
    return spelling.lstrip("-").replace("-", "_")


def spellings(name: str) -> list[str]:
    """Returns all spellings that `argument` takes for this name, without and with the dashes before it."""
    first, *words = name.split("_")
    joined = [
        first + "".join(mark + word for mark, word in zip(marks, words, strict=True))
        for marks in product("_-", repeat=len(words))
    ]
    return [dashes + spelling for dashes in ("", "--") for spelling in joined]


_COUNTS = ("max_num_seqs", "max_num_batched_tokens", "data_parallel_size", "block_size")
"""These arguments are often given, and are numbers for certain."""

# The API server lets rules see declared fields alone, so what is refused has to be declared: in all spellings.
_ARGS_SCHEMA = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {
        spelling: {"x-kubernetes-int-or-string": True, "description": f"Refused: {instead}."}
        for name, instead in OWNED_ARGS.items()
        for spelling in spellings(name)
    }
    | {
        spelling: {"type": "boolean", "description": "vLLM's prefix cache; on by default."}
        for spelling in spellings("enable_prefix_caching")
    }
    | {
        spelling: {"x-kubernetes-int-or-string": True, "description": f"vLLM's {name}."}
        for name in _COUNTS
        for spelling in spellings(name)
    },
}


def in_cel(spelling: str) -> str:
    """Returns how rules in CEL write a field of this name."""
    return spelling.replace("-", "__dash__")


def _owned_arg(name: str, instead: str) -> Rule:
    cel = " && ".join(f"!has(self.args.{in_cel(spelling)})" for spelling in spellings(name))
    return Rule(
        f"args must not hold {name}: {instead}",
        f"!has(self.args) || ({cel})",
        lambda it: name not in map(argument, it.args),
        ".args",
    )


def _one_spelling(name: str) -> Rule:
    given = ", ".join(f"has(self.args.{in_cel(spelling)})" for spelling in spellings(name))
    first, second = name, name.replace("_", "-")
    return Rule(
        f"args must not hold {name} in two spellings, as {first} and {second}: remove one",
        f"!has(self.args) || [{given}].filter(given, given).size() <= 1",
        lambda it: sum(argument(spelling) == name for spelling in it.args) <= 1,
        ".args",
    )


def _no_second_spelling(args: dict[str, Any]) -> dict[str, Any]:
    """Refuses an argument in two spellings. The API server cannot, because rules see declared arguments alone."""
    seen: dict[str, str] = {}
    for spelling in args:
        other = seen.setdefault(argument(spelling), spelling)
        if other != spelling and argument(spelling) not in ("enable_prefix_caching", *_COUNTS):
            advice = f"args must not hold an argument in two spellings: {other} and {spelling}: remove one"
            raise PydanticCustomError("advice", "{advice}", {"advice": advice})
    return args


class ConfigMapKeyReference(Part):
    name: ObjectName
    key: SecretKey
    optional: bool = False


class EnvSecretKeyReference(Part):
    name: ObjectName
    key: SecretKey
    optional: bool = False


class EnvSource(Part):
    secret_key_ref: EnvSecretKeyReference | None = None
    config_map_key_ref: ConfigMapKeyReference | None = None

    rules = (
        Rule(
            "give exactly one of secretKeyRef and configMapKeyRef",
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            lambda it: (it.secret_key_ref is None) != (it.config_map_key_ref is None),
        ),
    )


class EnvVar(Part):
    """It is an environment variable, as in a pod."""

    name: Annotated[
        str,
        text(
            r"^[A-Za-z_][A-Za-z0-9_]*$",
            "must be a variable's name: letters, digits and _, and no digit first",
            most=256,
        ),
    ]
    value: Annotated[str, Field(max_length=32768)] | None = None
    value_from: EnvSource | None = None

    rules = (
        Rule(
            "give exactly one of value and valueFrom",
            "has(self.value) != has(self.valueFrom)",
            lambda it: (it.value is None) != (it.value_from is None),
        ),
        Rule(
            f"the platform sets {', '.join(OWNED_ENV)} and all that begin with {OWNED_ENV_PREFIX} itself: leave it out",
            f"!(self.name in {list(OWNED_ENV)!r}) && !self.name.startsWith('{OWNED_ENV_PREFIX}')",
            lambda it: it.name not in OWNED_ENV and not it.name.startswith(OWNED_ENV_PREFIX),
            ".name",
        ),
    )


class Engine(Part):
    """It configures the engine of every replica."""

    args: Annotated[dict[str, Any], AfterValidator(_no_second_spelling), WithJsonSchema(_ARGS_SCHEMA)] = Field(
        default_factory=dict
    )
    """vLLM's engine arguments under their Python names, as `gpu_memory_utilization: 0.92`. They are passed on
    unchanged. Names as on its command line (`--gpu-memory-utilization`) mean the same."""
    env: Annotated[
        tuple[EnvVar, ...],
        Field(max_length=64, json_schema_extra=list_map("name")),
    ] = ()
    """Environment variables of the engine's processes."""

    rules = (
        *(_owned_arg(name, instead) for name, instead in OWNED_ARGS.items()),
        *(_one_spelling(name) for name in ("enable_prefix_caching", *_COUNTS)),
    )

    def given(self, name: str) -> Any:
        """Returns the argument's value in whatever spelling it is given; None if it is not."""
        return next((value for spelling, value in self.args.items() if argument(spelling) == name), None)


_NO_GPUS = r"^(google[.]com|habana[.]ai|aws[.]amazon[.]com|huawei[.]com)/"
_SLICES = r"/(mig-.+|gpu[.]shared)$"
"""NVIDIA's device plugin names parts of a GPU so. They cannot work together on one model."""


class Gpu(Part):
    """It says which GPUs one replica takes."""

    per_replica: Annotated[int, Field(ge=0, le=1024)] | None = None
    """All GPUs of one replica. The default is tensorParallel times pipelineParallel. A larger number needs
    `engine.args.data_parallel_size`. 0 is for engines that run on CPUs."""
    per_pod: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs of one worker pod. The default is all of a replica's. Set fewer where a replica is larger than a node."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that share each layer (vLLM's tensor_parallel_size). Keep them on one node."""
    pipeline_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of stages, each with its share of the layers (vLLM's pipeline_parallel_size). They may lie on several
    nodes."""
    resource_name: Annotated[
        str,
        text(
            r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            "must be what the nodes call them: a domain, a slash and a name, as nvidia.com/gpu",
            most=253,
        ),
    ] = "nvidia.com/gpu"
    """The resource name of the nodes' GPUs. MIG devices (`nvidia.com/mig-3g.40gb`) and shared GPUs
    (`nvidia.com/gpu.shared`) are possible too, one to a replica."""
    type: (
        Annotated[
            str,
            text(
                r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
                "must be a label's value: letters, digits, -, _ and ., as NVIDIA-H100-80GB-HBM3",
                least=1,
                most=63,
            ),
        ]
        | None
    ) = Field(
        None,
        description=f"The kind of GPU as the nodes' label `{GPU_TYPE_LABEL}` says it (or the label named in the "
        "controller's configuration), as `NVIDIA-H100-80GB-HBM3`. Without it any node with enough GPUs is taken.",
    )

    @property
    def count(self) -> int:
        """Returns the number of GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel if self.per_replica is None else self.per_replica

    @property
    def count_per_pod(self) -> int:
        """Returns the number of GPUs of one worker pod."""
        return self.per_pod or self.count

    rules = (
        Rule(
            "perReplica must be a multiple of tensorParallel times pipelineParallel: leave it out to get exactly that",
            "!has(self.perReplica) || self.perReplica % (self.tensorParallel * self.pipelineParallel) == 0",
            lambda it: it.count % (it.tensor_parallel * it.pipeline_parallel) == 0,
            ".perReplica",
        ),
        Rule(
            "perPod must divide the GPUs of a replica evenly",
            "!has(self.perPod) || (has(self.perReplica) ? self.perReplica"
            " : self.tensorParallel * self.pipelineParallel) % self.perPod == 0",
            lambda it: it.count % it.per_pod == 0 if it.per_pod else True,
            ".perPod",
        ),
        Rule(
            "perReplica is 0, so no pod has GPUs: leave perPod out, or set perReplica",
            "!has(self.perPod) || !has(self.perReplica) || self.perReplica > 0",
            lambda it: not it.per_pod or it.count > 0,
            ".perPod",
        ),
        Rule(
            "resourceName names no GPUs: Ray would not count these devices, and the Model would wait for them for "
            "ever. TPUs, Gaudi, Neuron and Ascend devices are not supported",
            f"!has(self.resourceName) || !self.resourceName.matches('{_NO_GPUS}')",
            lambda it: not re.match(_NO_GPUS, it.resource_name),
            ".resourceName",
        ),
        Rule(
            "parts of GPUs cannot work together: with a MIG device or a shared GPU a replica has one, so leave "
            "perReplica, tensorParallel and pipelineParallel out, or name whole GPUs",
            f"!has(self.resourceName) || !self.resourceName.matches('{_SLICES}') ||"
            " (has(self.perReplica) ? self.perReplica : self.tensorParallel * self.pipelineParallel) <= 1",
            lambda it: not re.search(_SLICES, it.resource_name) or it.count <= 1,
            ".resourceName",
        ),
    )


class Resources(Part):
    """It says how much CPU, memory and the like one worker pod requests and may use. GPUs are set in `gpu`."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = Field(default_factory=dict)
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = Field(default_factory=dict)

    rules = (
        Rule(
            "requests must not be above limits",
            # Those of which a pod may use more than it asks for; all of them would be too much for a rule.
            "!has(self.requests) || !has(self.limits) || ['cpu', 'memory', 'ephemeral-storage'].all(name,"
            " !(name in self.requests) || !(name in self.limits)"
            " || !quantity(string(self.requests[name])).isGreaterThan(quantity(string(self.limits[name]))))",
            lambda it: all(
                amount(value) <= amount(it.limits[name]) for name, value in it.requests.items() if name in it.limits
            ),
            ".requests",
        ),
    )


class Toleration(Part):
    """It is a toleration, as in a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str, Field(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None
