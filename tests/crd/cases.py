"""Bad Models, each with the field and the words of its refusal: the API server and the Python types agree on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HUB = {"huggingFace": {"repo": "Qwen/Qwen3-8B"}}
ONE_SOURCE = "give exactly one of huggingFace, pvc, objectStore, image and simulator"
NOT_THE_GPUS = "resources must not hold the GPUs (gpu.resourceName): set gpu.perReplica and gpu.perPod"
NO_SUCH_ENV = "the platform sets VLLM_API_KEY, HF_TOKEN, HUGGING_FACE_HUB_TOKEN and all that begin with RAY_ itself"
BAD_NAME = "metadata.name must begin with a letter, hold only a-z, 0-9 and -, and be at most 47 long"
OWN_ID = "aliases must not hold the model's id (spec.id, or metadata.name without it)"
ADAPTER_IS_ANOTHER = "an adapter's id must not be what another one is called (<model id or alias>:<name>)"
ADAPTER_IS_MODEL = "an adapter must not be called as the model is (its id, or an alias)"
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


@dataclass(frozen=True)
class Case:
    """`path` is the field at fault; `said` are words of the refusal, empty where the two sides put it differently."""

    name: str
    path: str
    said: str
    spec: dict[str, Any] = field(default_factory=dict)

    def model(self) -> dict[str, Any]:
        return model(self.name, self.spec)


def model(name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """A Model of a public repository, with `spec` on top."""
    return {
        "apiVersion": "cloudach.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name},
        "spec": {"source": HUB, **(spec or {})},
    }


def _adapter(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": HUB, **more}


def _lora(*adapters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"lora": {"adapters": list(adapters), **more}}


def _env(**entry: Any) -> dict[str, Any]:
    return {"engine": {"env": [{"name": "FINE", "value": "1"}, entry]}}


def _args(**args: Any) -> dict[str, Any]:
    return {"engine": {"args": args}}


def _spec(**spec: Any) -> dict[str, Any]:
    return spec


RULES = (
    Case("no-source", "spec.source", ONE_SOURCE, _spec(source={})),
    Case("two-sources", "spec.source", ONE_SOURCE, _spec(source={**HUB, "simulator": {}})),
    Case(
        "path-absolute",
        "spec.source.pvc.path",
        "path is taken from the claim's root: give it without a leading / and without ..",
        _spec(source={"pvc": {"claimName": "weights", "path": "/models"}}),
    ),
    Case(
        "path-upwards",
        "spec.source.pvc.path",
        "path is taken from the claim's root",
        _spec(source={"pvc": {"claimName": "weights", "path": "models/../../etc"}}),
    ),
    Case(
        "endpoint-of-gs",
        "spec.source.objectStore.endpoint",
        "endpoint is for s3:// alone: leave it out",
        _spec(source={"objectStore": {"uri": "gs://bucket/model", "endpoint": "https://storage.example.com"}}),
    ),
    Case(
        "image-folder-without-image",
        "spec.image",
        "source.image needs the image that holds the weights: set image",
        _spec(source={"image": {"path": "/models/llama"}}),
    ),
    *(
        Case(
            f"arg-{name.replace('_', '-')}-{kind}",
            "spec.engine.args",
            f"args must not hold {name}: {instead}",
            _args(**{spelling: "x" if kind == "s" else 1}),
        )
        for name, instead in OWNED_ARGS.items()
        for kind, spelling in (("s", name), ("i", name.replace("_", "-")))
    ),
    *(
        Case(
            f"arg-{number}",
            "spec.engine.args",
            "args must not hold tensor_parallel_size: set gpu.tensorParallel",
            _args(**{spelling: 2}),
        )
        for number, spelling in enumerate(
            ("--tensor-parallel-size", "--tensor_parallel_size", "tensor_parallel-size", "tensor-parallel_size")
        )
    ),
    *(
        Case(
            f"arg-twice-{number}",
            "spec.engine.args",
            f"args must not hold {name} in two spellings, as {name} and {name.replace('_', '-')}: remove one",
            _args(**{name: value, name.replace("_", "-"): value}),
        )
        for number, (name, value) in enumerate(
            {
                "enable_prefix_caching": True,
                "max_num_seqs": 8,
                "max_num_batched_tokens": "1k",
                "data_parallel_size": 1,
                "block_size": 16,
            }.items()
        )
    ),
    Case("arg-api-key-dashed", "spec.engine.args", "args must not hold api_key", _args(**{"--api-key": "x"})),
    Case(
        "requests-above-limits",
        "spec.resources.requests",
        "requests must not be above limits",
        _spec(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "2G"}}),
    ),
    Case(
        "cpus-above-limits",
        "spec.resources.requests",
        "requests must not be above limits",
        _spec(resources={"requests": {"cpu": 2}, "limits": {"cpu": "1999m"}}),
    ),
    Case("env-owned", "spec.engine.env[1].name", NO_SUCH_ENV, _env(name="HF_TOKEN", value="hf_x")),
    Case("env-ray", "spec.engine.env[1].name", NO_SUCH_ENV, _env(name="RAY_SERVE_ENABLE_HA_PROXY", value="0")),
    Case("env-nothing", "spec.engine.env[1]", "give exactly one of value and valueFrom", _env(name="A")),
    Case(
        "env-both",
        "spec.engine.env[1]",
        "give exactly one of value and valueFrom",
        _env(name="A", value="1", valueFrom={"secretKeyRef": {"name": "a", "key": "b"}}),
    ),
    Case(
        "env-from-nowhere",
        "spec.engine.env[1].valueFrom",
        "give exactly one of secretKeyRef and configMapKeyRef",
        _env(name="A", valueFrom={}),
    ),
    Case(
        "gpu-not-a-multiple",
        "spec.gpu.perReplica",
        "perReplica must be a multiple of tensorParallel times pipelineParallel: leave it out to get exactly that",
        _spec(gpu={"perReplica": 6, "tensorParallel": 2, "pipelineParallel": 2}),
    ),
    Case(
        "gpu-per-pod",
        "spec.gpu.perPod",
        "perPod must divide the GPUs of a replica evenly",
        _spec(gpu={"tensorParallel": 4, "perPod": 3}),
    ),
    Case(
        "gpus-of-a-pod-without-gpus",
        "spec.gpu.perPod",
        "perReplica is 0, so no pod has GPUs: leave perPod out, or set perReplica",
        _spec(gpu={"perReplica": 0, "perPod": 8}),
    ),
    *(
        Case(
            name,
            "spec.gpu.resourceName",
            "resourceName names no GPUs: Ray would not count these devices, and the Model would wait for them",
            _spec(gpu={"resourceName": resource}),
        )
        for name, resource in {
            "tpu": "google.com/tpu",
            "gaudi": "habana.ai/gaudi",
            "neuron": "aws.amazon.com/neuroncore",
            "ascend": "huawei.com/Ascend910",
        }.items()
    ),
    *(
        Case(
            name,
            "spec.gpu.resourceName",
            "parts of GPUs cannot work together: with a MIG device or a shared GPU a replica has one",
            _spec(gpu={"resourceName": resource, **more}),
        )
        for name, resource, more in (
            ("two-mig-devices", "nvidia.com/mig-3g.40gb", {"tensorParallel": 2}),
            ("two-shared-gpus", "nvidia.com/gpu.shared", {"perReplica": 2}),
        )
    ),
    Case("gpu-as-limit", "spec.resources", NOT_THE_GPUS, _spec(resources={"limits": {"nvidia.com/gpu": 1}})),
    Case(
        "gpu-as-request",
        "spec.resources",
        NOT_THE_GPUS,
        _spec(gpu={"resourceName": "amd.com/gpu"}, resources={"requests": {"amd.com/gpu": "1"}}),
    ),
    Case(
        "simulator-with-gpu",
        "spec.gpu",
        "a simulator uses no GPU: leave gpu out",
        _spec(source={"simulator": {}}, gpu={"perReplica": 1}),
    ),
    Case(
        "bounds",
        "spec.autoscaling.maxReplicas",
        "maxReplicas must not be less than minReplicas",
        _spec(autoscaling={"minReplicas": 3, "maxReplicas": 2}),
    ),
    Case(
        "routing-without-cache",
        "spec.routing",
        "prefixAware and kvAware need vLLM's prefix cache: remove engine.args.enable_prefix_caching: false",
        _spec(routing="prefixAware", **_args(enable_prefix_caching=False)),
    ),
    Case(
        "routing-without-cache-dashed",
        "spec.routing",
        "prefixAware and kvAware need vLLM's prefix cache: remove engine.args.enable_prefix_caching: false",
        _spec(routing="kvAware", **_args(**{"--enable-prefix-caching": False})),
    ),
    Case(
        "routing-of-simulator",
        "spec.routing",
        "prefixAware and kvAware need vLLM's prefix cache and its tokens: they do not go with a simulator",
        _spec(routing="kvAware", source={"simulator": {}}),
    ),
    Case(
        "adapter-without-source",
        "spec.lora.adapters[0].source",
        "give exactly one of huggingFace, pvc, objectStore, image and simulator",
        _spec(lora={"adapters": [{"name": "sql", "source": {}}]}),
    ),
    Case(
        "adapter-path-upwards",
        "spec.lora.adapters[0].source.pvc.path",
        "path is taken from the claim's root",
        _lora({"name": "a", "source": {"pvc": {"claimName": "w", "path": "../x"}}}),
    ),
    Case(
        "adapter-ids-alike",
        "spec.lora.adapters",
        "adapters must not have the same id",
        _lora(_adapter("a", id="same"), _adapter("b", id="same")),
    ),
    Case(
        "adapter-of-image-without-image",
        "spec.image",
        "an adapter's source.image needs the image that holds it: set image",
        _lora({"name": "a", "source": {"image": {"path": "/adapters/a"}}}),
    ),
    Case(
        "simulators-adapter-over-weights",
        "spec.lora.adapters",
        "adapters of a simulator have the source simulator, and no others have",
        _lora({"name": "a", "source": {"simulator": {}}}),
    ),
    Case(
        "adapter-over-simulator",
        "spec.lora.adapters",
        "adapters of a simulator have the source simulator, and no others have",
        _spec(source={"simulator": {}}, **_lora(_adapter("a"))),
    ),
    Case(
        "adapter-is-another",
        "spec.lora.adapters",
        ADAPTER_IS_ANOTHER,
        _lora(_adapter("a", id="adapter-is-another:b"), _adapter("b")),
    ),
    Case(
        "adapter-is-another-by-id",
        "spec.lora.adapters",
        ADAPTER_IS_ANOTHER,
        _spec(id="Q:1", **_lora(_adapter("b", id="x"), _adapter("a", id="Q:1:b"))),
    ),
    Case(
        "adapter-is-another-by-alias",
        "spec.lora.adapters",
        ADAPTER_IS_ANOTHER,
        _spec(aliases=["small"], **_lora(_adapter("b"), _adapter("a", id="small:b"))),
    ),
    Case("adapter-is-name", "spec.lora.adapters", ADAPTER_IS_MODEL, _lora(_adapter("a", id="adapter-is-name"))),
    Case("adapter-is-id", "spec.lora.adapters", ADAPTER_IS_MODEL, _spec(id="Q", **_lora(_adapter("a", id="Q")))),
    Case(
        "adapter-is-alias",
        "spec.lora.adapters",
        ADAPTER_IS_MODEL,
        _spec(aliases=["x", "small"], **_lora(_adapter("a", id="small"))),
    ),
    Case(
        "alias-is-adapter",
        "spec.aliases",
        "aliases must not hold what an adapter is called (<model id>:<name>)",
        _spec(id="Q", aliases=["Q:a"], **_lora(_adapter("a"))),
    ),
    Case("alias-is-name", "spec.aliases", OWN_ID, _spec(aliases=["small", "alias-is-name"])),
    Case("alias-is-id", "spec.aliases", OWN_ID, _spec(id="Qwen3", aliases=["Qwen3"])),
    Case("qwen3-0.6b", "", BAD_NAME),
    Case("8b-qwen", "", BAD_NAME),
    Case("a" * 48, "", BAD_NAME),
)

SCHEMA = (
    Case(
        "id-with-space",
        "spec.id",
        "must begin with a letter or a digit, and hold letters, digits, ., _, :, / and - alone",
        _spec(id="Llama 3"),
    ),
    Case("id-empty", "spec.id", "", _spec(id="")),
    Case("alias-too-long", "spec.aliases[0]", "", _spec(aliases=["a" * 129])),
    Case("alias-twice", "spec.aliases", "", _spec(aliases=["a", "a"])),
    Case("too-many-aliases", "spec.aliases", "", _spec(aliases=[f"a{n}" for n in range(17)])),
    Case(
        "repo-with-scheme",
        "spec.source.huggingFace.repo",
        "must be organisation and name, as meta-llama/Llama-3.1-8B-Instruct; not a URL",
        _spec(source={"huggingFace": {"repo": "https://x/y"}}),
    ),
    Case(
        "store-of-http",
        "spec.source.objectStore.uri",
        "must begin with s3://, gs://, abfss:// or azure:// and name a bucket and a folder in it",
        _spec(source={"objectStore": {"uri": "http://x/y"}}),
    ),
    Case("pvc-without-claim", "spec.source.pvc.claimName", "", _spec(source={"pvc": {}})),
    Case("negative-replicas", "spec.replicas", "", _spec(replicas=-1)),
    Case("replicas-as-text", "spec.replicas", "", _spec(replicas="2")),
    Case("no-max", "spec.autoscaling.maxReplicas", "", _spec(autoscaling={"minReplicas": 0})),
    Case("unknown-routing", "spec.routing", "", _spec(routing="random")),
    Case("negative-drain", "spec.drainSeconds", "", _spec(drainSeconds=-1)),
    Case("endless-drain", "spec.drainSeconds", "", _spec(drainSeconds=7201)),
    Case(
        "memory-in-gb",
        "spec.resources.limits.memory",
        "must be a quantity, as 4, 500m or 16Gi",
        _spec(resources={"limits": {"memory": "16GB"}}),
    ),
    Case(
        "gpu-resource",
        "spec.gpu.resourceName",
        "must be what the nodes call them: a domain, a slash and a name, as nvidia.com/gpu",
        _spec(gpu={"resourceName": "gpu"}),
    ),
    Case("adapters-twice", "spec.lora.adapters", "", _lora(_adapter("a"), _adapter("a"))),
    Case("no-adapters", "spec.lora.adapters", "", _lora()),
    Case(
        "adapter-with-colon",
        "spec.lora.adapters[0].name",
        "must begin with a letter or a digit, and hold letters, digits, ., _ and - alone: set id for other names",
        _lora(_adapter("a:b")),
    ),
    Case(
        "adapter-id-with-space",
        "spec.lora.adapters[0].id",
        "must begin with a letter or a digit",
        _lora(_adapter("a", id="my adapter")),
    ),
    Case("rank-of-nothing", "spec.lora.maxRank", "", _lora(_adapter("a"), maxRank=0)),
    Case("none-loaded", "spec.lora.maxLoaded", "", _lora(_adapter("a"), maxLoaded=0)),
    Case("unknown-salt", "spec.cacheSalt", "", _spec(cacheSalt="user")),
    Case("unknown-fields", "spec.unknownFields", "", _spec(unknownFields="drop")),
    Case(
        "field-with-dot",
        "spec.allowedFields[0]",
        "must be the name of a request's field",
        _spec(allowedFields=["stream_options.x"]),
    ),
    Case("field-twice", "spec.allowedFields", "", _spec(allowedFields=["priority", "priority"])),
    Case(
        "media-of-a-url",
        "spec.allowedMediaDomains[0]",
        "must be a host in lower case, as images.example.com or images.example.com:8080, or *",
        _spec(allowedMediaDomains=["https://example.com"]),
    ),
    Case("media-twice", "spec.allowedMediaDomains", "", _spec(allowedMediaDomains=["a.test", "a.test"])),
    Case(
        "claim-in-capitals",
        "spec.source.pvc.claimName",
        "must be the name of an object: lower-case letters, digits, - and .",
        _spec(source={"pvc": {"claimName": "Weights"}}),
    ),
    Case("image-with-space", "spec.image", "must be an image's name, without white space", _spec(image="a b")),
    Case(
        "gpu-type",
        "spec.gpu.type",
        "must be a label's value: letters, digits, -, _ and .",
        _spec(gpu={"type": "H100 NVL"}),
    ),
    Case("env-dashed", "spec.engine.env[1].name", "must be a variable's name", _env(name="A-B", value="1")),
    Case("env-twice", "spec.engine.env", "", _env(name="FINE", value="2")),
    Case("bad-effect", "spec.tolerations[0].effect", "", _spec(tolerations=[{"effect": "Never"}])),
)
