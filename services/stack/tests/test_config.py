"""The stack's own file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cloudach_service.settings import expanded
from cloudach_stack.config import ConfigError, drain_s, gateway_config, inference_config, load, traces


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(
        "models: [{id: a, source: ./weights, adapters: [{name: sql, source: ../sql}]}, {id: b, source: org/model}]\n"
        "gateway: {redis: {data_dir: data, timeout_s: 1}, kubernetes: {kubeconfig: /k, cache_file: cache.json}}\n"
    )
    monkeypatch.chdir("/")
    config = load(file)
    models = inference_config(config, "vllm", Path("/state"))["models"]
    assert [model["source"] for model in models] == [str(tmp_path / "weights"), "org/model"]
    assert models[0]["adapters"][0]["source"] == str(tmp_path / "../sql")
    upstreams = {"a": "http://a", "b": "http://b"}
    gateway = gateway_config(config, port=1, state_dir=Path("/state"), upstreams=upstreams, api_key=None)
    assert gateway["redis"] == {"data_dir": str(tmp_path / "data"), "timeout_s": 1}
    assert gateway["kubernetes"] == {"kubeconfig": "/k", "cache_file": str(tmp_path / "cache.json")}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "models"),
        ("models: [{id: ''}]", "models.0.id"),
        ("models: [{id: a, aliases: ['b,c']}]", "models.0.aliases.0"),
        ("models: [{id: a, source: ''}]", "models.0.source"),
        ("models: [{id: a, replicas: 0}]", "models.0.replicas"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "models.yaml").write_text(text)
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        load(tmp_path / "models.yaml")


def test_paths_of_the_gateway_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(
        "models: [{id: a}]\n"
        "gateway: {redis: {data_dir: '${CLOUDACH_TEST_DATA}'},"
        " kubernetes: {cache_file: '${CLOUDACH_TEST_CACHE:-c.json}'}}\n"
    )
    monkeypatch.setenv("CLOUDACH_TEST_DATA", "/srv/${data}")
    config = load(file)
    gateway = gateway_config(config, port=1, state_dir=Path("/state"), upstreams={"a": "http://a"}, api_key=None)
    assert expanded(gateway["redis"]["data_dir"]) == "/srv/${data}"
    assert gateway["kubernetes"]["cache_file"] == str(tmp_path / "c.json")


def test_models_may_take_values_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models: [{id: '${NAME}', source: '${SOURCE:-./w}', engine_args: {hf_token: '${TOKEN}'}}]\n")
    monkeypatch.setenv("NAME", "a")
    monkeypatch.setenv("TOKEN", "x${y}")
    config = load(file)
    assert (config.models[0].id, config.models[0].source) == ("a", str(tmp_path / "w"))
    (model,) = inference_config(config, "vllm", Path("/state"))["models"]
    assert expanded(model["engine_args"]["hf_token"]) == "x${y}"  # the engines' service reads it once more
    monkeypatch.delenv("TOKEN")
    with pytest.raises(ConfigError, match=r"line 1: models\.0\.engine_args\.hf_token: .* TOKEN is not set"):
        load(file)


def test_secrets_of_the_gateway_get_into_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models: [{id: a}]\ngateway:\n  cache_salt_secret: ${SALT}\n  timeouts: {drain_s: '${DRAIN}'}\n")
    monkeypatch.setenv("SALT", "hunter2hunter2hunter2")
    monkeypatch.setenv("DRAIN", "3")
    gateway = gateway_config(load(file), port=1, state_dir=Path("/s"), upstreams={"a": "http://a"}, api_key=None)
    assert gateway["cache_salt_secret"] == "${SALT}"
    assert drain_s(gateway) == 3
    monkeypatch.delenv("SALT")
    with pytest.raises(ConfigError, match=r"line 3: gateway\.cache_salt_secret: .* SALT is not set"):
        load(file)


def test_the_gateways_receiver_of_traces_is_that_of_the_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDACH_TEST_HOST", "collector")
    file = tmp_path / "models.yaml"
    file.write_text(
        "models: [{id: a}]\n"
        "gateway: {telemetry: {traces: {endpoint: 'http://${CLOUDACH_TEST_HOST}:4317', protocol: grpc, ratio: 0.1}}}\n"
    )
    config = load(file)
    told = {"endpoint": "http://${CLOUDACH_TEST_HOST}:4317", "protocol": "grpc"}
    assert traces(config) == told
    assert inference_config(config, "ray-sim", Path("/state"))["telemetry"] == {"traces": told}


@pytest.mark.parametrize("section", ["{}", "{telemetry: nonsense}", "{telemetry: {traces: null}}"])
def test_engines_are_told_of_no_traces_where_the_gateway_is_not(tmp_path: Path, section: str) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(f"models: [{{id: a}}]\ngateway: {section}\n")
    assert "telemetry" not in inference_config(load(file), "vllm", Path("/state"))
