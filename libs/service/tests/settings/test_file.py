from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from cloudach_service.settings import (
    FOLDER_OR_NAME,
    ConfigError,
    Group,
    Host,
    Name,
    Seconds,
    Secret,
    load,
    parse,
)


class Store(Group):
    folder: Path = Path("data")
    key: Secret = None
    wait_s: Seconds = 1.0


class Thing(Group):
    name: Name = "a"
    source: Annotated[str, FOLDER_OR_NAME] = "org/model"


class Settings(Group):
    store: Store = Store()
    things: tuple[Thing, ...] = ()
    host: Host = "127.0.0.1"
    ratio: float = 1.0


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    file = tmp_path / "conf" / "a.yaml"
    file.write_text("store: {folder: ../data}\nthings: [{source: ./x}, {source: org/y}, {source: /z}]")
    monkeypatch.chdir("/")
    settings = load(Settings, file)
    assert settings.store.folder.resolve() == tmp_path / "data"
    assert [thing.source for thing in settings.things] == [str(tmp_path / "conf/x"), "org/y", "/z"]
    monkeypatch.chdir(tmp_path)
    assert load(Settings, Path("conf/a.yaml")) == settings


def test_a_default_path_is_relative_to_the_file_too(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    assert load(Settings, tmp_path / "a.yaml").store.folder == tmp_path / "data"


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "a.yaml").write_text("store: {folder: ~/data}")
    assert load(Settings, tmp_path / "a.yaml").store.folder == Path("/home/me/data")
    (tmp_path / "a.yaml").write_text("store: {folder: ~no.such.user/data}")
    with pytest.raises(ConfigError, match=r"no\.such\.user"):
        load(Settings, tmp_path / "a.yaml")


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "secret\n")
    assert parse(Settings, "store: {key: '${KEY}'}", variables=True).store.key == "secret"
    assert parse(Settings, "store: {key: '${NO_KEY:-}'}", variables=True).store.key is None
    assert parse(Settings, "store: {key: '${KEY}'}").store.key == "${KEY}"
    with pytest.raises(ConfigError, match="NO_KEY is not set"):
        parse(Settings, "store: {key: '${NO_KEY}'}", variables=True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [", "is not YAML"),
        ("[1]", "expected a mapping"),
        ("more: 1", "more: Extra"),
        ("a: &a [*a]", "anchor"),
        ("ratio: .inf", "ratio: "),
        ("ratio: .nan", "ratio: "),
        ("ratio: 'inf'", "ratio: "),
        ("store: {wait_s: 0}", "store.wait_s: "),
        ("store: {wait_s: 1e300}", "store.wait_s: "),
        ("store: {wait_s: .inf}", "store.wait_s: "),
        ('store: {key: "a\\r\\nb"}', "store.key: "),
        ("host: localhost:8080", "host: "),
        ("host: ''", "host: "),
        ("things: [{name: ''}]", "things.0.name: "),
        ("things: [{name: 'a,b'}]", "things.0.name: "),
        ('things: [{name: "a\\nb"}]', "things.0.name: "),
        ("things: [{name: ' a'}]", "things.0.name: "),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(Settings, text, variables=True)
    assert named in str(refused.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(Settings, tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_bytes(b"host: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(Settings, tmp_path / "a.yaml")
