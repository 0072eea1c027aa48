import json
from pathlib import Path

import pytest
from cloudach_inference.local.config import parse
from cloudach_inference.local.hardware import Hardware, flags_of, gpus_among
from cloudach_inference.local.plan import PlanError, plan, ray_cpus
from cloudach_inference.replica.app import App, with_defaults

OLD_CPU = Hardware(cores=2, gpus=0, cpu_flags=frozenset({"avx2"}))
NEW_CPU = Hardware(cores=8, gpus=0, cpu_flags=frozenset({"avx512_bf16"}))
GPUS = Hardware(cores=16, gpus=4, cpu_flags=frozenset())
WEIGHTS = Path("/cache/weights/smol")


def planned(models: str, hardware: Hardware) -> tuple[App, ...]:
    return plan(parse(f"models: {models}"), hardware, WEIGHTS)


def test_default_model_on_a_cpu() -> None:
    (app,) = planned("[{id: M}]", NEW_CPU)
    assert (app.slug, app.engine, app.replicas, app.gpus) == ("m", "vllm", 1, 0)
    assert app.options["model_loading_config"] == {"model_id": "M", "model_source": str(WEIGHTS)}
    # bf16 would break exact continuation, whatever the CPU can.
    assert app.options["engine_kwargs"] == {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 2048,
        "enable_auto_tool_choice": True,
        "tool_call_parser": "hermes",
    }
    env = app.options["runtime_env"]["env_vars"]
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["TORCHDYNAMO_DISABLE"] == "1"
    assert "OMP_NUM_THREADS" not in env
    assert app.options["accelerator_config"] == {"kind": "cpu"}
    assert app.options["deployment_config"]["num_replicas"] == 1


def test_own_model_gets_the_cpus_best_type() -> None:
    models = "[{id: m, source: org/model}]"
    assert planned(models, OLD_CPU)[0].options["engine_kwargs"]["dtype"] == "float32"
    (app,) = planned(models, NEW_CPU)
    assert app.options["engine_kwargs"] == {"dtype": "bfloat16", "enforce_eager": True}
    # It may have to be downloaded.
    assert "HF_HUB_OFFLINE" not in app.options["runtime_env"]["env_vars"]
    assert "callback_config" not in app.options


def test_the_operators_arguments_win() -> None:
    (app,) = planned(
        "[{id: m, engine_args: {enforce_eager: false, max_model_len: 99, new_flag: 1}, env: {HF_HUB_OFFLINE: '0'}}]",
        OLD_CPU,
    )
    args = app.options["engine_kwargs"]
    assert (args["enforce_eager"], args["max_model_len"], args["new_flag"]) == (False, 99, 1)
    env = app.options["runtime_env"]["env_vars"]
    assert env["HF_HUB_OFFLINE"] == "0"
    assert "TORCHDYNAMO_DISABLE" not in env


def test_several_engines_share_the_cores() -> None:
    for app in planned("[{id: a, replicas: 3}, {id: b}, {id: c, engine: sim}]", NEW_CPU)[:2]:
        env = app.options["runtime_env"]["env_vars"]
        assert (env["VLLM_CPU_OMP_THREADS_BIND"], env["OMP_NUM_THREADS"]) == ("nobind", "2")


def test_gpus_follow_the_parallelism() -> None:
    (app,) = planned("[{id: m, source: org/model, engine_args: {tensor_parallel_size: 2}, replicas: 2}]", GPUS)
    assert app.gpus == 2
    assert app.options["engine_kwargs"] == {"tensor_parallel_size": 2}
    assert app.options["placement_group_config"] == {"bundles": [{"GPU": 1, "CPU": 1.0}] * 2}
    assert app.options["accelerator_config"] == {"kind": "gpu"}


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(PlanError, match="6 GPUs are asked for, and this machine has 4"):
        planned("[{id: m, source: org/model, engine_args: {tensor_parallel_size: 2}, replicas: 3}]", GPUS)
    with pytest.raises(PlanError, match=r"models\.m: it wants 1 GPUs"):
        planned("[{id: m, resources: {gpu: 1}}]", OLD_CPU)


def test_a_folder_has_to_hold_a_model(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no config\.json"):
        planned(f"[{{id: m, source: {tmp_path}}}]", OLD_CPU)
    (tmp_path / "config.json").write_text("{}")
    (app,) = planned(f"[{{id: m, source: {tmp_path}}}]", OLD_CPU)
    assert app.options["model_loading_config"]["model_source"] == str(tmp_path)
    assert app.options["callback_config"] == {"callback_class": "cloudach_inference.vllm_hooks.NoDownload"}


def test_simulator_is_told_its_name() -> None:
    (app,) = planned("[{id: S, engine: sim, engine_args: {rate: 7}, replicas: 2}]", OLD_CPU)
    assert app == App("S", "s", "sim", 2, 1.0, 0, 60.0, {"models": ["S"], "rate": 7})


def adapter(folder: Path, rank: object = 8) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_adapters_of_folders_and_of_the_hub(tmp_path: Path) -> None:
    one = adapter(tmp_path / "one")
    (app,) = planned(f"[{{id: m, adapters: [{{name: a, source: {one}}}]}}]", OLD_CPU)
    assert app.lora == {
        "adapters": ({"name": "a", "folder": str(one), "env_prefix": ""},),
        "max_loaded": 1,
    }
    assert app.options["runtime_env"]["env_vars"]["HF_HUB_OFFLINE"] == "1"
    (app,) = planned(f"[{{id: m, adapters: [{{name: a, source: {one}}}, {{name: b, source: org/b}}]}}]", OLD_CPU)
    assert app.lora is not None
    assert app.lora["adapters"][1]["repo"] == "org/b"
    # Else it could not be downloaded.
    assert "HF_HUB_OFFLINE" not in app.options["runtime_env"]["env_vars"]


def test_an_adapter_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"models\.m: LoRA adapter 'a': there is no adapter_config\.json in /"):
        planned(f"[{{id: m, adapters: [{{name: a, source: {tmp_path}}}]}}]", OLD_CPU)


def test_a_simulators_adapters_are_names() -> None:
    (app,) = planned("[{id: S, engine: sim, adapters: [{name: a}]}]", OLD_CPU)
    assert app.lora == {"adapters": [{"name": "a"}]}


def test_every_replica_finds_cpus() -> None:
    apps = planned("[{id: a, replicas: 3}, {id: b, engine: sim}]", OLD_CPU)
    assert ray_cpus(apps, OLD_CPU) >= 3 * 2 + 1
    assert ray_cpus(planned("[{id: b, engine: sim}]", GPUS), GPUS) == GPUS.cores


def test_cpu_flags_and_gpus_are_read() -> None:
    assert flags_of("processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\n\nflags\t: x\n") == {"fpu", "avx2", "amx_bf16"}
    assert flags_of("Features : neon") == frozenset()
    devices = ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"]
    assert gpus_among(devices, visible=None) == 2
    assert gpus_among(devices, visible="1") == 1
    assert gpus_among(devices, visible="") == 0
    assert gpus_among(devices, visible="-1") == 0
    assert gpus_among([], visible="0") == 0


@pytest.mark.parametrize(
    ("domains", "told"),
    [
        ([], ["none.invalid"]),
        (["b.example.com:9000", "a.example.com", "b.example.com"], ["a.example.com", "b.example.com"]),
        (["*"], None),
    ],
)
def test_an_engine_fetches_media_only_where_it_may(domains: list[str], told: list[str] | None) -> None:
    (app,) = planned(f"[{{id: m, source: org/model, allowed_media_domains: {json.dumps(domains)}}}]", GPUS)
    options = with_defaults(app.options)
    assert options["engine_kwargs"].get("allowed_media_domains") == told
    assert options["runtime_env"]["env_vars"]["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


def test_defaults_lie_beneath_what_the_operator_says() -> None:
    given = {
        "engine_kwargs": {"enable_prompt_tokens_details": False},
        "runtime_env": {"env_vars": {"VLLM_MEDIA_URL_ALLOW_REDIRECTS": "1", "A": "b"}, "pip": []},
    }
    options = with_defaults({**given, "x": 1})
    assert options["engine_kwargs"]["enable_prompt_tokens_details"] is False
    assert options["runtime_env"] == given["runtime_env"]
    assert options["x"] == 1
    assert given["engine_kwargs"] == {"enable_prompt_tokens_details": False}
