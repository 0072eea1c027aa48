"""What a settings file can do wrong, and what it may say in several ways."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from cloudach_gateway.settings import Settings
from cloudach_stack.config import GATEWAY_PATHS

from tests.support.processes import BIN
from tests.support.stack import Gateway, Simulator, create_key, served_by, start_gateway, start_sim


@pytest.fixture(scope="module")
def locked() -> Iterator[Simulator]:
    with start_sim(flat=True, model="sim", api_key="engine-key") as sim:
        yield sim


def _ask(gateway: Gateway) -> httpx.Response:
    key = create_key(gateway)
    body = {"model": "sim", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})


def test_an_engine_key_may_end_in_a_newline(locked: Simulator) -> None:
    """A Secret made by `echo key | base64` does."""
    models = [served_by(locked, api_key="${ENGINE_KEY:-}")]
    with start_gateway({"models": models}, {"ENGINE_KEY": "engine-key\n"}) as gateway:
        answer = _ask(gateway)
        assert answer.status_code == 200, answer.text


def test_an_engine_key_that_would_inject_headers_is_refused_at_the_start(tmp_path: Path) -> None:
    model = {"id": "sim", "upstreams": ["http://127.0.0.1:1"], "api_key": "key\r\nx-admin: yes"}
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump({"models": [model]}))
    command = [BIN / "cloudach-gateway", "--config", tmp_path / "gateway.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "models.0.api_key: " in done.stderr
    assert "x-admin" not in done.stderr


@pytest.mark.parametrize(
    ("command", "arguments", "start"),
    [
        ("cloudach-gateway", [], "kubernetes: {enabled: true}"),
        ("cloudach-controller", [], "rollout: {replacement: ask}"),
        ("cloudach-inference", ["serve"], "models: [{id: m}]"),
        ("cloudach-stack", ["up"], "models: [{id: m}]"),
    ],
)
def test_every_service_refuses_a_file_in_the_same_words(
    tmp_path: Path, command: str, arguments: list[str], start: str
) -> None:
    file = tmp_path / "a.yaml"

    def said(text: str) -> str:
        file.write_text(f"{start}\n{text}\n")
        asked = [BIN / command, *arguments, "--config", file]
        done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2, done
        assert not done.stdout
        return done.stderr

    assert said("colour: red") == f"{command}: {file}:\n  line 2: colour: Extra inputs are not permitted\n"
    problem = "the environment variable NO_SUCH_NAME is not set, and ${NO_SUCH_NAME} has no default"
    assert said("colour: a${NO_SUCH_NAME}") == f"{command}: {file}:\n  line 2: colour: {problem}\n"
    assert said('colour: "hunter2').startswith(f"{command}: {file} is not YAML: ")
    assert "hunter2" not in said('colour: "hunter2')


def test_a_key_made_from_another_folder_goes_into_the_same_store(
    tmp_path: Path, locked: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [served_by(locked, api_key="engine-key")]
    with start_gateway({"models": models, "redis": {"data_dir": "data"}}) as gateway:
        monkeypatch.chdir(tmp_path)
        assert _ask(gateway).status_code == 200
        assert list(tmp_path.iterdir()) == []
        assert (gateway.folder / "data" / "valkey.log").exists()


def test_the_stack_knows_which_of_the_gateways_settings_are_paths() -> None:
    found = {
        (group, name)
        for group, field in Settings.model_fields.items()
        for name, inner in getattr(type(field.default), "model_fields", {}).items()
        if "Path" in str(inner.annotation)
    }
    assert found == set(GATEWAY_PATHS)
