"""A Model read from the API server's JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cloudach_model_api import InvalidModel, Model


def model(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cloudach.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "llama3-8b", "namespace": "ml", **metadata},
        "spec": {"source": {"huggingFace": {"repo": "meta-llama/Llama-3.1-8B-Instruct"}}, **(spec or {})},
    }


def refusal(spec: dict[str, Any]) -> str:
    with pytest.raises(InvalidModel) as caught:
        Model.from_object(model(spec))
    return str(caught.value)


def test_without_an_id_it_is_called_as_the_resource() -> None:
    read = Model.from_object(model({"aliases": ["small"]}))
    assert read.names == ("llama3-8b", "small")
    assert read.upstream_model == "llama3-8b"


def test_a_new_id_leaves_the_engines_name_alone() -> None:
    read = Model.from_object(model({"id": "meta-llama/Llama-3.1-8B"}))
    assert read.id == "meta-llama/Llama-3.1-8B"
    assert read.upstream_model == "llama3-8b"


def test_adapters_are_asked_for_behind_any_of_the_names() -> None:
    source = {"huggingFace": {"repo": "example-org/sql"}}
    adapters = [{"name": "sql", "source": source}, {"name": "b", "id": "Own/Name", "source": source}]
    read = Model.from_object(model({"id": "Llama", "aliases": ["small"], "lora": {"adapters": adapters}}))
    sql, own = read.adapters
    assert (sql.id, sql.names) == ("Llama:sql", ("Llama:sql", "small:sql"))
    assert (own.id, own.names) == ("Own/Name", ("Own/Name", "Llama:b", "small:b"))
    assert Model.from_object(model()).adapters == ()


@pytest.mark.parametrize(("more", "at_once"), [({}, 8), ({"maxLoaded": 20}, 20)])
def test_not_all_adapters_are_loaded_at_once(more: dict[str, int], at_once: int) -> None:
    adapters = [{"name": f"a{n}", "source": {"huggingFace": {"repo": "o/a"}}} for n in range(12)]
    lora = Model.from_object(model({"lora": {"adapters": adapters, **more}})).spec.lora
    assert lora is not None
    assert lora.loaded_at_once == at_once


@pytest.mark.parametrize(
    "endpoint", ["http://minio:99999", "http://minio:port", "http://minio:0", "http://[::1", "http://:9000"]
)
def test_an_endpoint_has_a_host_and_a_port_that_there_is(endpoint: str) -> None:
    """The controller opens that port in a network policy."""
    told = refusal({"source": {"objectStore": {"uri": "s3://bucket/model", "endpoint": endpoint}}})
    assert told.startswith("spec.source.objectStore.endpoint: endpoint must be a URL")


@pytest.mark.parametrize("endpoint", ["http://minio:9000", "https://s3.example.com/", "http://[fd00::5]:9000"])
def test_endpoints(endpoint: str) -> None:
    source = {"objectStore": {"uri": "s3://bucket/model", "endpoint": endpoint}}
    store = Model.from_object(model({"source": source})).spec.source.object_store
    assert store is not None
    assert store.endpoint == endpoint


def test_defaults() -> None:
    spec = Model.from_object(model()).spec
    assert (spec.replicas, spec.routing, spec.drain_seconds, spec.autoscaling) == (1, "balanced", 60, None)
    assert (spec.gpu.count, spec.gpu.count_per_pod, spec.gpus_per_replica) == (1, 1, 1)
    assert spec.gpu.resource_name == "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("gpu", "count", "per_pod"),
    [
        ({"tensorParallel": 4}, 4, 4),
        ({"tensorParallel": 8, "pipelineParallel": 2, "perPod": 8}, 16, 8),
        ({"tensorParallel": 2, "perReplica": 4}, 4, 4),
        ({"perReplica": 0}, 0, 0),
    ],
)
def test_gpus_of_a_replica_and_of_a_pod(gpu: dict[str, int], count: int, per_pod: int) -> None:
    spec = Model.from_object(model({"gpu": gpu})).spec
    assert (spec.gpus_per_replica, spec.gpu.count_per_pod) == (count, per_pod)


def test_a_simulator_has_no_gpu() -> None:
    assert Model.from_object(model({"source": {"simulator": {}}})).spec.gpus_per_replica == 0


def test_engine_arguments_are_any_json() -> None:
    args = {
        "gpu_memory_utilization": 0.92,
        "hf_overrides": {"rope": [1, 2]},
        "enforce_eager": True,
        "quantization": None,
    }
    assert Model.from_object(model({"engine": {"args": args}})).spec.engine.args == args


def test_what_the_server_adds_is_no_mistake() -> None:
    read = Model.from_object(
        {
            **model(managedFields=[{"manager": "kubectl"}], creationTimestamp="2026-11-23T06:47:00Z", generation=3),
            "status": {"readyReplicas": 2, "state": "Ready", "something": "newer"},
        }
    )
    assert (read.metadata.generation, read.status.ready_replicas, read.status.state) == (3, 2, "Ready")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"replicaCount": 2}, "spec.replicaCount: there is no such field"),
        ({"replicas": "2"}, "spec.replicas: input should be a valid integer"),
        ({"replicas": -1}, "spec.replicas: input should be greater than or equal to 0"),
        ({"routing": "random"}, "spec.routing: input should be 'balanced', 'prefixAware' or 'kvAware'"),
        ({"resources": {"limits": {"memory": "16GB"}}}, "spec.resources.limits.memory: must be a quantity"),
        ({"tolerations": [{"key": "a"}, {"effect": "Never"}]}, "spec.tolerations[1].effect: input should be"),
        ({"source": {"pvc": {}}}, "spec.source.pvc.claimName: field required"),
        ({"aliases": ["a", "a"]}, "spec.aliases: names must differ"),
        ({"engine": {"env": [{"name": "A", "value": "1"}] * 2}}, "spec.engine.env: names must differ"),
        ({"imagePullSecrets": [{"name": "a"}] * 2}, "spec.imagePullSecrets: names must differ"),
    ],
)
def test_the_error_names_the_field(spec: dict[str, Any], said: str) -> None:
    assert said in refusal(spec)


def test_mistakes_are_told_together() -> None:
    said = refusal({"replicas": -1, "gpu": {"perReplica": 3, "tensorParallel": 2}})
    assert "spec.replicas: " in said
    assert "spec.gpu.perReplica: " in said


def test_another_kind_is_refused() -> None:
    with pytest.raises(InvalidModel, match="kind: input should be 'Model'"):
        Model.from_object({**model(), "kind": "Modell"})


def test_when_the_gateways_asked() -> None:
    read = Model.from_object(
        model(
            annotations={
                "cloudach.dev/wake-requested-at": "2026-11-23T06:47:00.123Z",
                "cloudach.dev/last-request-at": "yesterday",
            }
        )
    )
    assert read.wake_requested_at == datetime(2026, 11, 23, 6, 47, 0, 123000, UTC)
    assert read.last_request_at is None


@pytest.mark.parametrize(
    ("less", "more"),
    [("500m", 1), ("1G", "1Gi"), ("100Mi", "0.1Gi"), ("999k", "1M"), ("1e3", "1001"), ("5n", "1u"), ("0", ".5")],
)
def test_quantities_are_compared_as_amounts(less: int | str, more: int | str) -> None:
    Model.from_object(model({"resources": {"requests": {"cpu": less}, "limits": {"cpu": more}}}))
    said = refusal({"resources": {"requests": {"cpu": more}, "limits": {"cpu": less}}})
    assert said == "spec.resources.requests: requests must not be above limits"


def test_an_argument_in_two_spellings_is_refused() -> None:
    said = refusal({"engine": {"args": {"max_num_seqs": 1, "--max-num-seqs": 2}}})
    assert said.startswith("spec.engine.args: args must not hold max_num_seqs in two spellings, as max_num_seqs and ")
    said = refusal({"engine": {"args": {"swap-space": 1, "swap_space": 2}}})
    assert said == (
        "spec.engine.args: args must not hold an argument in two spellings: swap-space and swap_space: remove one"
    )
    said = refusal({"id": "a\n"})
    assert said.startswith("spec.id: must begin with a letter or a digit")
