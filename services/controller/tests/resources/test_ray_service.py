"""The RayService that KubeRay gets, for the kinds of Models there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloudach_controller.resources.form import ray_cluster
from cloudach_controller.resources.ray_service import application
from cloudach_controller.settings import parse
from cloudach_inference.serve import app
from cloudach_model_api.model import Model

EXAMPLES = Path(__file__).parents[4] / "k8s" / "examples"


def model(spec: dict[str, Any]) -> Model:
    return Model.from_object({"metadata": {"name": "m", "namespace": "llm", "uid": "u"}, "spec": spec})


def worker(of: Model, settings: str = "") -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The group, its pod's spec, and the container."""
    group = ray_cluster(of, parse(settings))["workerGroupSpecs"][0]
    return group, group["template"]["spec"], group["template"]["spec"]["containers"][0]


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


HF = {"huggingFace": {"repo": "meta/llama"}}


def test_gpus_type_and_parallelism() -> None:
    of = model({"source": HF, "gpu": {"tensorParallel": 4, "pipelineParallel": 2, "perPod": 4, "type": "H100"}})
    group, pod, container = worker(of)
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "H100"}
    options = application(of)["args"]["options"]
    assert len(options["placement_group_config"]["bundles"]) == 8
    assert options["engine_kwargs"] == {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}
    # A pod's logical CPUs hold a GPU bundle each and the replica's own actor.
    assert group["rayStartParams"]["num-cpus"] == "5"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nvidia.com/gpu", None),  # KubeRay and Ray's autoscaler see it in the pod's limits
        ("amd.com/gpu", None),
        ("nvidia.com/gpu.shared", "1"),
        ("nvidia.com/mig-3g.40gb", "1"),
        ("gpu.intel.com/i915", "1"),
    ],
)
def test_ray_is_told_of_gpus_that_it_does_not_know_by_their_name(name: str, told: str | None) -> None:
    group, _, container = worker(model({"source": HF, "gpu": {"resourceName": name}}))
    assert container["resources"]["limits"] == {name: 1}
    assert group["rayStartParams"].get("num-gpus") == told
    assert "num-gpus" not in worker(model({"source": HF, "gpu": {"perReplica": 0}}))[0]["rayStartParams"]


def test_secrets_reach_the_pods_and_not_the_serve_config() -> None:
    source = {"huggingFace": {"repo": "meta/llama", "revision": "abc", "tokenSecret": {"name": "hf"}}}
    reference = {"secretKeyRef": {"name": "s", "key": "k"}}
    of = model({"source": source, "engine": {"env": [{"name": "KEY", "valueFrom": reference}]}})
    found = env(worker(of)[2])
    assert found["HF_TOKEN"] == {"secretKeyRef": {"name": "hf", "key": "token"}}
    assert found["KEY"]["secretKeyRef"]["name"] == "s"
    text = json.dumps(application(of))
    assert "HF_TOKEN" not in text
    assert '"revision": "abc"' in text


def test_weights_of_a_volume() -> None:
    of = model({"source": {"pvc": {"claimName": "w", "path": "a/b"}}})
    _, pod, container = worker(of)
    assert {"name": "weights", "persistentVolumeClaim": {"claimName": "w", "readOnly": True}} in pod["volumes"]
    assert {"name": "weights", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]
    assert application(of)["args"]["options"]["model_loading_config"]["model_source"] == "/models/a/b"


def test_weights_of_a_bucket() -> None:
    store = {"uri": "s3://b/m", "endpoint": "http://minio:9000", "credentialsSecret": {"name": "minio"}}
    of = model({"source": {"objectStore": store}})
    container = worker(of)[2]
    assert container["envFrom"] == [{"secretRef": {"name": "minio"}}]
    assert env(container)["AWS_ENDPOINT_URL"] == "http://minio:9000"
    assert application(of)["args"]["options"]["model_loading_config"]["model_source"] == {"bucket_uri": "s3://b/m"}


def test_weights_of_the_image() -> None:
    of = model({"source": {"image": {"path": "/weights/x"}}, "image": "example.com/own:1"})
    assert worker(of)[2]["image"] == "example.com/own:1"
    assert application(of)["args"]["options"]["model_loading_config"]["model_source"] == "/weights/x"


def test_a_simulator_takes_no_gpu() -> None:
    of = model({"source": {"simulator": {}}, "engine": {"args": {"rate": 20.0}}, "maxModelLen": 100})
    assert "limits" not in worker(of)[2]["resources"]
    assert application(of)["args"] == {
        "engine": "sim",
        "name": "m",
        "cpus": 1,
        "options": {"max_model_len": 100, "rate": 20.0},
    }


def test_adapters_from_everywhere() -> None:
    store = {"uri": "s3://b/a", "endpoint": "http://minio:9000", "credentialsSecret": {"name": "minio"}}
    adapters = [
        {"name": "store", "source": {"objectStore": store}},
        {"name": "hub", "source": {"huggingFace": {"repo": "o/h", "revision": "v2", "tokenSecret": {"name": "own"}}}},
        {"name": "open", "source": {"huggingFace": {"repo": "o/open"}}},
        {"name": "claim", "id": "own-name", "source": {"pvc": {"claimName": "c", "path": "a/b"}}},
        {"name": "image", "source": {"image": {"path": "/baked/in"}}},
    ]
    of = model({"source": HF, "image": "example.com/own:1", "lora": {"adapters": adapters, "maxRank": 32}})
    assert application(of)["args"]["lora"] == {
        "adapters": [
            {"name": "claim", "folder": "/adapters/c/a/b"},
            {"name": "hub", "repo": "o/h", "revision": "v2", "env_prefix": "ADAPTER_8DE73223_"},
            {"name": "image", "folder": "/baked/in"},
            {"name": "open", "repo": "o/open"},
            {"name": "store", "uri": "s3://b/a", "endpoint": "http://minio:9000", "env_prefix": "ADAPTER_5791B622_"},
        ],
        "max_loaded": 5,
        "max_rank": 32,
    }
    _, pod, container = worker(of)
    assert env(container)["ADAPTER_8DE73223_HF_TOKEN"] == {"secretKeyRef": {"name": "own", "key": "token"}}
    assert container["envFrom"] == [{"prefix": "ADAPTER_5791B622_", "secretRef": {"name": "minio"}}]
    assert {"name": "adapters-0", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}} in pod["volumes"]
    assert {"name": "adapters-0", "mountPath": "/adapters/c", "readOnly": True} in container["volumeMounts"]


def test_the_engine_learns_whose_media_it_may_fetch() -> None:
    domains = ["a.example.com", "b.example.com:9000"]
    options = application(model({"source": HF, "allowedMediaDomains": domains}))["args"]["options"]
    assert options["engine_kwargs"] == {"allowed_media_domains": domains}
    assert application(model({"source": HF}))["args"]["options"]["engine_kwargs"] == {}


def test_an_adapter_of_the_hub_is_not_cut_off_from_it() -> None:
    adapters = [{"name": "a", "source": {"huggingFace": {"repo": "o/a"}}}]
    source = {"pvc": {"claimName": "w"}}
    alone = application(model({"source": source}))["args"]["options"]
    assert alone["runtime_env"]["env_vars"] == {"HF_HUB_OFFLINE": "1"}
    assert (
        "runtime_env" not in application(model({"source": source, "lora": {"adapters": adapters}}))["args"]["options"]
    )


def test_a_simulators_adapters_are_names() -> None:
    adapters = [{"name": "b", "source": {"simulator": {}}}, {"name": "a", "source": {"simulator": {}}}]
    args = application(model({"source": {"simulator": {}}, "lora": {"adapters": adapters}}))["args"]
    assert args["lora"] == {"adapters": [{"name": "a"}, {"name": "b"}], "max_loaded": 2}


def test_the_engine_understands_what_it_is_told() -> None:
    for path in EXAMPLES.glob("*.yaml"):
        for obj in yaml.safe_load_all(path.read_text()):
            if obj["kind"] == "Model":
                assert app(application(Model.from_object(obj))["args"]).model_id == obj["metadata"]["name"]


@pytest.mark.parametrize(
    ("settings", "path", "expected"),
    [
        ("inference: {image: r/x:1}", ("workerGroupSpecs", 0, "template", "spec", "containers", 0, "image"), "r/x:1"),
        ("inference: {ray_version: 2.61.0}", ("rayVersion",), "2.61.0"),
        ("inference: {worker_idle_s: 7}", ("autoscalerOptions", "idleTimeoutSeconds"), 7),
        ("inference: {gpu_type_label: gpu}", ("workerGroupSpecs", 0, "template", "spec", "nodeSelector"), {"gpu": "A"}),
        ("ray: {token_secret: t}", ("authOptions", "secretName"), "t"),
        ("ray: {token_auth: false}", ("authOptions",), None),
        ("ray: {gcs_redis_address: 'r:1'}", ("gcsFaultToleranceOptions", "redisAddress"), "r:1"),
        ("", ("gcsFaultToleranceOptions",), None),
        ("", ("enableInTreeAutoscaling",), True),
        ("", ("headGroupSpec", "rayStartParams", "num-cpus"), "0"),
    ],
)
def test_settings(settings: str, path: tuple[Any, ...], expected: Any) -> None:
    found: Any = ray_cluster(model({"source": HF, "gpu": {"type": "A"}}), parse(settings))
    for step in path[:-1]:
        found = found[step]
    assert (found.get(path[-1]) if isinstance(found, dict) else found[path[-1]]) == expected


def test_arguments_may_be_spelled_as_on_the_command_line() -> None:
    of = model({"source": HF, "engine": {"args": {"--max-num-seqs": 8, "gpu-memory_utilization": 0.5}}})
    assert application(of)["args"]["options"]["engine_kwargs"] == {"max_num_seqs": 8, "gpu_memory_utilization": 0.5}
    simulated = model({"source": {"simulator": {}}, "engine": {"args": {"--ttft-ms": 5}}})
    assert application(simulated)["args"]["options"]["ttft_ms"] == 5


def test_streams_take_the_fast_way() -> None:
    found = env(worker(model({"source": HF}), "inference: {env: {A: b}}")[2])
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert found["RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"] == "1"
    assert found["A"] == "b"


@pytest.mark.parametrize(("routing", "forwarded"), [("balanced", None), ("prefixAware", "1"), ("kvAware", "1")])
def test_a_router_that_looks_at_prompts_gets_them(routing: str, forwarded: str | None) -> None:
    of = model({"source": HF, "routing": routing})
    assert env(worker(of)[2]).get("RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY") == forwarded
    options = application(of)["args"]["options"]
    assert ("deployment_config" in options) == (forwarded is not None)


def test_a_default_request_is_never_above_the_models_limit() -> None:
    resources = worker(model({"source": HF, "resources": {"limits": {"memory": "1Gi"}}}))[2]["resources"]
    assert "memory" not in resources["requests"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_has_a_ray_service(path: Path) -> None:
    for obj in yaml.safe_load_all(path.read_text()):
        if obj["kind"] == "Model":
            of = Model.from_object(obj)
            pod = worker(of)[1]
            assert pod["securityContext"]["runAsNonRoot"]
            assert application(of)["import_path"] == "cloudach_inference.serve:build"


def test_engines_ask_for_the_models_own_key() -> None:
    """In the environment as it is when a process begins, and in a folder that follows the Secret."""
    _, pod, container = worker(model({"source": HF}))
    assert env(container)["VLLM_API_KEY"] == {"secretKeyRef": {"name": "cloudach-engine-keys", "key": "m"}}
    (volume,) = [each["secret"] for each in pod["volumes"] if "secret" in each]
    assert volume["secretName"] == "cloudach-engine-keys"
    assert [item["key"] for item in volume["items"]] == ["m", "m.also"], "and no other Model's"
    cluster = ray_cluster(model({"source": HF}), parse(""))
    assert "cloudach-engine-keys" not in json.dumps(cluster["headGroupSpec"])


def test_only_the_head_whose_autoscaler_asks_the_api_server_has_a_token() -> None:
    of = model({"source": HF, "serviceAccountName": "s3-reader"})
    assert worker(of)[1]["automountServiceAccountToken"] is False
    assert worker(of)[1]["serviceAccountName"] == "s3-reader"
    assert "automountServiceAccountToken" not in worker(of, "inference: {automount_service_account_token: true}")[1]
    assert "automountServiceAccountToken" not in ray_cluster(of, parse(""))["headGroupSpec"]["template"]["spec"]


def head(of: Model, settings: str = "") -> dict[str, Any]:
    """The head's pod with the container that KubeRay puts beside Ray (`BuildAutoscalerContainer` in its `pod.go`)."""
    cluster = ray_cluster(of, parse(settings))
    options = cluster["autoscalerOptions"]
    given = {name: options[name] for name in ("resources", "securityContext") if name in options}
    pod: dict[str, Any] = cluster["headGroupSpec"]["template"]["spec"]
    pod["containers"].append({"name": "autoscaler", **given})
    return pod


SPOT = "{key: spot, operator: Exists}"


@pytest.mark.parametrize(
    ("settings", "selector", "tolerations", "affinity"),
    [
        ("", None, None, None),
        ("head_node_selector: {pool: small}", {"pool": "small"}, None, None),
        (f"head_tolerations: [{SPOT}]", None, [{"key": "spot", "operator": "Exists"}], None),
        ("head_with_model: true", {"pool": "big"}, [{"key": "gpu", "operator": "Exists"}], {"podAntiAffinity": {}}),
        (
            f"head_with_model: true, head_node_selector: {{pool: small}}, head_tolerations: [{SPOT}]",
            {"pool": "small"},
            [{"key": "spot", "operator": "Exists"}, {"key": "gpu", "operator": "Exists"}],
            {"podAntiAffinity": {}},
        ),
    ],
)
def test_where_heads_go(settings: str, selector: Any, tolerations: Any, affinity: Any) -> None:
    """Never to nodes of a GPU's kind, and never where a Model's workers go unless the operator says so."""
    of = model(
        {
            "source": HF,
            "nodeSelector": {"pool": "big"},
            "gpu": {"type": "H100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
        }
    )
    cluster = ray_cluster(of, parse(f"inference: {{{settings}}}"))
    pod = cluster["headGroupSpec"]["template"]["spec"]
    assert (pod.get("nodeSelector"), pod.get("tolerations"), pod.get("affinity")) == (selector, tolerations, affinity)
    # KubeRay passes over new tolerations; in an annotation they count.
    annotations = cluster["headGroupSpec"]["template"]["metadata"].get("annotations") or {}
    assert ("cloudach.dev/tolerations-hash" in annotations) == (tolerations is not None)


def test_what_the_autoscaler_beside_the_head_asks_for() -> None:
    own = "inference: {autoscaler_cpu: 50m, autoscaler_memory: 300Mi}"
    (_, beside) = head(model({"source": HF}), own)["containers"]
    assert beside["resources"] == {"requests": {"cpu": "50m", "memory": "300Mi"}, "limits": {"memory": "300Mi"}}


def test_pods_are_asked_every_second_whether_they_answer_and_a_long_start_ends_none() -> None:
    """A liveness probe of our own would replace KubeRay's, which waits ten minutes for Ray, and never for an engine."""
    of = model({"source": HF})
    probe = worker(of)[2]["readinessProbe"]
    assert (probe["httpGet"], probe["periodSeconds"]) == ({"path": "/-/healthz", "port": 8000}, 1)
    assert head(of)["containers"][0]["readinessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}
    for container in (worker(of)[2], head(of)["containers"][0]):
        assert not {"livenessProbe", "startupProbe"} & container.keys()


@pytest.mark.parametrize("seconds", [0, 60, 7200])
def test_a_pod_that_is_evicted_has_the_time_of_a_replica_that_is_to_go(seconds: int) -> None:
    _, pod, container = worker(model({"source": HF, "drainSeconds": seconds}))
    assert env(container)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == str(seconds)
    assert pod["terminationGracePeriodSeconds"] == seconds + 15


def test_variables_that_the_operator_sets_are_set_once() -> None:
    own = "inference: {env: {RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S: '3'}}"
    names = [one["name"] for one in worker(model({"source": HF}), own)[2]["env"]]
    assert names.count("RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S") == 1
    assert env(worker(model({"source": HF}), own)[2])["RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S"] == "3"
    assert env(worker(model({"source": HF}))[2])["RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S"] == "1"
