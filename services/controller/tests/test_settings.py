"""Settings and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cloudach_controller.__main__ import main
from cloudach_controller.settings import ConfigError, Settings, load, parse


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kubernets: {}", "kubernets: Extra inputs"),
        ("ray: {poll_s: 0}", "ray.poll_s: Input should be greater than 0"),
        ("leader_election: {renew_s: 20}", "leader_election: retry_s < renew_s < duration_s"),
        ("ray: {endpoint_url: 'http://{host}'}", "ray.endpoint_url: only {name} and {namespace}"),
        ("ray: {endpoint_url: 'http://{name}:PORT'}", "ray.endpoint_url: "),
        ("ray: {endpoint_url: '{name}.{namespace}:8000'}", "ray.endpoint_url: "),
        ("ray: {dashboard_url: 'http://{name}/{namespace.x}'}", "ray.dashboard_url: only {name}, {namespace}, {clust"),
        ("ray: {gcs_redis_address: redis}", "ray.gcs_redis_address: "),
        ("ray: {token_secret: My_Secret}", "ray.token_secret: "),
        ("ray: {poll_s: .inf}", "ray.poll_s: "),
        ("kubernetes: {resync_s: .nan}", "kubernetes.resync_s: "),
        ("kubernetes: {namespaces: ['a b']}", "kubernetes.namespaces.0: "),
        ("leader_election: {name: ''}", "leader_election.name: "),
        ("listen: {host: '0.0.0.0:8080'}", "listen.host: "),
        ("inference: {image: ''}", "inference.image: "),
        ("inference: {head_memory: 4 GB}", "inference.head_memory: "),
        ("inference: {head_tolerations: [{keys: a}]}", "inference.head_tolerations.0.keys: "),
        ("inference: {gpu_type_label: 'a b'}", "inference.gpu_type_label: "),
        ("inference: {env: {'A B': x}}", "inference.env.A B.[key]: "),
        ("rollout: {replacement: never}", "rollout.replacement"),
        ("[1]", "expected a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_bad_settings_are_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert words in str(refused.value)


def test_a_kubeconfig_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "controller.yaml").write_text("kubernetes: {kubeconfig: kube/config}")
    monkeypatch.chdir("/")
    assert load(tmp_path / "controller.yaml").kubernetes.kubeconfig == tmp_path / "kube/config"


def test_help_lists_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    for group, field in Settings.model_fields.items():
        for name in getattr(type(field.default), "model_fields", {}):
            assert f"  {group}.{name}  (" in told
    assert "  ray.poll_s  (seconds; default: 2)\n      pause between two looks" in told


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("log_level: debug")
    bad.write_text("log_level: loud")
    assert main(["--config", str(good), "--check"]) == 0
    assert main(["--config", str(bad), "--check"]) == 2
    assert "log_level" in capsys.readouterr().err
    assert main(["--config", str(tmp_path / "none.yaml")]) == 2


def test_a_value_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE", "registry.example.com/inference:1")
    text = "inference:\n  image: ${IMAGE}\n  env: {HF_ENDPOINT: '${HUB}'}\n"
    with pytest.raises(ConfigError, match=r"line 3: inference\.env\.HF_ENDPOINT: .* HUB is not set"):
        parse(text)
    monkeypatch.setenv("HUB", "https://hub.example.com")
    found = parse(text).inference
    assert (found.image, found.env) == ("registry.example.com/inference:1", {"HF_ENDPOINT": "https://hub.example.com"})
