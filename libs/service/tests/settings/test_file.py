from __future__ import annotations

import traceback
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pytest
from cloudach_service.settings import (
    FOLDER_OR_NAME,
    PASSED_ON,
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
    passed: Annotated[dict[str, Any], PASSED_ON] = pydantic.Field(default_factory=dict)


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
    monkeypatch.setenv("HALF", "0.5")
    assert parse(Settings, "store: {key: '${KEY}'}").store.key == "secret"
    assert parse(Settings, "store: {key: '${NO_KEY:-}'}").store.key is None
    assert parse(Settings, "ratio: ${HALF}").ratio == 0.5
    assert parse(Settings, "things: [{name: '$${KEY}'}]").things[0].name == "${KEY}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "host: 127.0.0.1\nstore:\n  key: ${NO_KEY}",
            "line 3: store.key: the environment variable NO_KEY is not set, and ${NO_KEY} has no default",
        ),
        ("things:\n- name: a\n- name: ${NO_KEY}", "line 3: things.1.name: the environment variable NO_KEY is not set"),
        ("store: {key: 'a${NO-KEY}'}", "line 1: store.key: a ${ in it begins no ${NAME}"),
        ("passed:\n  deep: [{a: '${NO_KEY}'}]", "line 2: passed.deep.0.a: the environment variable NO_KEY is not set"),
    ],
)
def test_a_variable_that_is_not_set_is_refused_with_its_field(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(Settings, text)
    assert said in str(refused.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        parse(Settings, "host: ${NO_A}\nratio: ${NO_B}\nratio: 2")
    assert str(refused.value).count("\n") == 3
    text = "things:\n  - name: 'a,b'\n  - nam: c\nstore:\n  wait_s: 0"
    with pytest.raises(ConfigError) as refused:
        parse(Settings, text, source="a.yaml")
    lines = str(refused.value).splitlines()
    assert lines[0] == "a.yaml:"
    assert lines[1].startswith("  line 5: store.wait_s: Input should be greater than 0")
    assert lines[2].startswith("  line 2: things.0.name: 'a,b' has a comma")
    assert lines[3].startswith("  line 3: things.1.nam: Extra inputs are not permitted")


def test_settings_of_another_service_are_passed_on_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "secret")
    assert parse(Settings, "passed: {key: '${KEY}', more: ['$${X}']}").passed == {"key": "${KEY}", "more": ["$${X}"]}


@pytest.mark.parametrize(
    "text",
    [
        'store: {key: "hunter2 }',
        "store: {key: *hunter2}",
        "store: {key: !hunter2 x}",
        "store: {key: !hunter2!x y}",
        "store: {key: !it's-hunter2 x}",
        "store: {key: &hunter2 a, other: &hunter2 b}",
        "store: {key: hunter2: x}",
        "store: {key: 'hunter2\u00a0\x00'}",
        "store: {key: [hunter2]}",
        "ratio: hunter2",
        "store: hunter2",
        "things: {a: hunter2}",
        "store: {key: 'hunter2${'}",
        "store: {key: 'hunter2${NOT_SET}'}",
        "store: {key: 2001-99-99, password: hunter2}",
        "hunter2",
    ],
)
def test_no_error_holds_a_value(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(Settings, text)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value)[-1:])
    assert refused.value.__cause__ is None


def test_a_secret_is_not_shown_with_the_settings() -> None:
    settings = parse(Settings, "store: {key: hunter2}")
    assert settings.store.key == "hunter2"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [", "is not YAML"),
        ("[1]", "expected a mapping"),
        ("more: 1", "more: Extra"),
        ("a: &a [*a]", "an anchor holds itself"),
        ("passed: &a {b: [*a]}", "an anchor holds itself"),
        ("host: a\nratio: 2\nhost: b", "line 1: host: it is there twice"),
        ("passed: {b: [{c: 1, c: 1}]}", "line 1: passed.b.0.c: it is there twice"),
        ("things: [{}, {source: ''}, {sourc: x}]", "line 1: things.2.sourc: Extra"),
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
        parse(Settings, text)
    assert named in str(refused.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(Settings, tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_bytes(b"host: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(Settings, tmp_path / "a.yaml")
