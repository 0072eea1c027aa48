from pathlib import Path

import pytest
from cloudach_inference.local.config import ConfigError, api_key, load, parse
from cloudach_inference.local.slugs import slug


@pytest.mark.parametrize(
    ("model_id", "expected"),
    [
        ("smollm2-135m", "smollm2-135m"),
        ("Qwen/Qwen3-8B", "qwen-qwen3-8b"),
        ("a__b.C", "a-b-c"),
        ("  x  ", "x"),
        ("模型", "model"),
    ],
)
def test_slug_is_a_path_segment(model_id: str, expected: str) -> None:
    assert slug(model_id) == expected


def test_a_model_needs_no_more_than_an_id() -> None:
    model = parse("models: [{id: m}]").models[0]
    assert (model.engine, model.source, model.replicas) == ("vllm", "default", 1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("models: []", "models"),
        ("models: [{id: m, replicas: 0}]", "models.0.replicas"),
        ("models: [{id: m, engin: sim}]", "models.0.engin"),
        ("models: [{id: m, engine: llama.cpp}]", "models.0.engine"),
        ("models: [{id: a}, {id: m, engine_args: {served_model_name: x}}]", "models.1: .*served_model_name"),
        ("{models: [{id: m}], http_port: 70000}", "http_port"),
        ("models: [{id: 'A b'}, {id: a-b}]", "'A b' and 'a-b' both come to the route /a-b"),
        ("models: [{id: m}, {id: m}]", "'m' and 'm'"),
        ("models: [{id: m, adapters: [{name: a}]}]", "models.0: .*adapters.a: name its source"),
        ("models: [{id: m, engine: sim, adapters: [{name: a, source: x}]}]", "simulator's adapters have no source"),
        ("models: [{id: m, adapters: [{name: a, source: x}, {name: a, source: y}]}]", "a name is used twice"),
        ("models: [{id: ''}]", r"models\.0\.id"),
        ("models: [{id: m, drain_s: .inf}]", r"models\.0\.drain_s"),
        ("models: [{id: m, resources: {cpu: .nan}}]", r"models\.0\.resources\.cpu"),
        ("{models: [{id: m}], start_timeout_s: .inf}", "start_timeout_s"),
        ("{models: [{id: m}], telemetry: {traces: {endpoint: collector}}}", r"telemetry\.traces\.endpoint"),
        ("{models: [{id: m}], telemetry: {traces: {protocol: udp}}}", r"telemetry\.traces\.protocol"),
        ("{models: [{id: m}], api_key_env: 'A B'}", "api_key_env"),
        ("models: [", "not YAML"),
        ("[1]", "expected a mapping"),
    ],
)
def test_bad_input_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse(text)


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inference.yaml").write_text(
        "{models: [{id: m, source: ./w, adapters: [{name: a, source: ~/a}]}, {id: n, source: a/b}], api_key_file: key}"
    )
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/me")
    settings = load(tmp_path / "inference.yaml")
    assert [model.source for model in settings.models] == [str(tmp_path / "w"), "a/b"]
    assert settings.models[0].adapters[0].source == "/home/me/a"
    assert (settings.api_key_file, settings.state_dir) == (tmp_path / "key", tmp_path / ".run")


def test_the_simulator_takes_any_settings() -> None:
    assert parse("models: [{id: m, engine: sim, engine_args: {rate: 0}}]").models[0].engine_args == {"rate": 0}


def test_key_comes_from_the_variable_or_the_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert api_key(parse("models: [{id: m}]"), {"CLOUDACH_ENGINE_API_KEY": "k"}) == "k"
    assert api_key(parse("models: [{id: m}]"), {}) is None
    assert api_key(parse("{models: [{id: m}], api_key_env: X}"), {"X": "x"}) == "x"
    assert api_key(parse(f"{{models: [{{id: m}}], api_key_file: {file}}}"), {}) == "from-file"
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        api_key(parse(f"{{models: [{{id: m}}], api_key_file: {file}}}"), {})
    assert api_key(parse("models: [{id: m}]"), {"CLOUDACH_ENGINE_API_KEY": "k\n"}) == "k"
    with pytest.raises(ConfigError, match="CLOUDACH_ENGINE_API_KEY: character 2"):
        api_key(parse("models: [{id: m}]"), {"CLOUDACH_ENGINE_API_KEY": "k\nx: y"})
    with pytest.raises(ConfigError, match="cannot read"):
        api_key(parse(f"{{models: [{{id: m}}], api_key_file: {file}.not}}"), {})


def test_values_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "models: [{id: m, replicas: '${REPLICAS:-2}', env: {HF_TOKEN: '${TOKEN}'}}]"
    with pytest.raises(ConfigError, match=r"line 1: models\.0\.env\.HF_TOKEN: .* TOKEN is not set"):
        parse(text)
    monkeypatch.setenv("TOKEN", "hunter2")
    (model,) = parse(text).models
    assert (model.replicas, model.env) == (2, {"HF_TOKEN": "hunter2"})
