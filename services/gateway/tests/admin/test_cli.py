"""`cloudach keys …` as it is typed: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from cloudach_gateway.admin.cli import main
from cloudach_gateway.admission.api_keys import parse_api_key
from cloudach_gateway.admission.key_records import LIMITS
from cloudach_gateway.store.embedded import EmbeddedValkey, running_url

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(valkey_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exit code, stdout, stderr."""
    monkeypatch.setenv("CLOUDACH_REDIS_URL", valkey_url)
    monkeypatch.delenv("CLOUDACH_CONFIG", raising=False)

    def typed(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["keys", *words])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return typed


def _create(run: Run, tenant: str, *more: str) -> dict:
    code, out, _ = run("create", "--tenant", tenant, "--json", *more)
    assert code == 0
    made: dict = json.loads(out)
    return made


def test_a_key_is_shown_once(run: Run, tenant: str) -> None:
    code, out, _ = run("create", "--tenant", tenant, "--name", "chat")
    assert code == 0
    api_key = out.splitlines()[0]
    key_id = parse_api_key(api_key).key_id
    assert "not shown again" in out
    for words in (
        ["list"],
        ["list", "--json"],
        ["show", key_id],
        ["show", key_id, "--json"],
        ["limit", key_id, "--models", "a"],
    ):
        code, out, err = run(*words)
        assert code == 0
        assert api_key.rsplit("-", 1)[1] not in out + err
        assert key_id in out


def test_everything_that_a_key_can_have(run: Run, tenant: str) -> None:
    made = _create(
        run, tenant, "--name", "chat", "--models", "llama3-8b, qwen", "--requests-per-minute", "60",
        "--tokens-per-minute", "90000", "--concurrent-streams", "8", "--expires", "30d",
    )  # fmt: skip
    expected = {
        "tenant": tenant,
        "name": "chat",
        "models": ["llama3-8b", "qwen"],
        "requests_per_minute": 60,
        "tokens_per_minute": 90000,
        "concurrent_streams": 8,
        "disabled": False,
    }
    assert expected.items() <= made.items()
    expires = datetime.fromisoformat(made["expires_at"])
    assert abs(expires - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=1)
    _, out, _ = run("list", "--tenant", tenant)
    assert [line.split()[0] for line in out.splitlines()] == ["ID", made["id"]]


def test_a_keys_life(run: Run, tenant: str) -> None:
    made = _create(run, tenant)
    key_id = made["id"]

    def shown() -> dict:
        found: dict = json.loads(run("show", key_id, "--json")[1])
        return found

    run("limit", key_id, "--requests-per-minute", "5", "--models", "a,b")
    assert (shown()["requests_per_minute"], shown()["models"]) == (5, ["a", "b"])
    run("limit", made["key"], "--requests-per-minute", "none", "--models", "all")
    assert (shown()["requests_per_minute"], shown()["models"]) == (None, None)
    run("disable", key_id)
    assert shown()["disabled"] is True
    assert " disabled " in run("list", "--tenant", tenant)[1]
    run("enable", key_id)
    assert shown()["disabled"] is False
    run("expire", key_id, "--at", "2031-02-03")
    assert shown()["expires_at"] == "2031-02-03T00:00:00Z"
    run("expire", key_id, "--at", "now")
    assert " expired " in run("list", "--tenant", tenant)[1]
    run("expire", key_id, "--at", "never")
    assert shown()["expires_at"] is None
    rotated = json.loads(run("rotate", key_id, "--grace", "1h", "--json")[1])
    assert rotated["id"] == key_id
    assert rotated["key"] != made["key"]
    assert shown()["previous_secret_valid_until"] is not None
    assert shown()["used_today"]["requests"] == 0
    assert run("delete", key_id)[0] == 0
    code, _, err = run("show", key_id)
    assert (code, err) == (1, f"cloudach: there is no key {key_id}\n")
    assert "no keys" in run("list", "--tenant", tenant)[1]


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["create"], 2, "--tenant"),
        (["create", "--tenant", "t", "--expires", "soon"], 2, "no time"),
        (["create", "--tenant", "t", "--expires", "2020-01-01"], 1, "already"),
        (["create", "--tenant", "t", "--requests-per-minute", "0"], 2, "positive"),
        (["create", "--tenant", "t", "--requests-per-minute", "1e3"], 2, "positive"),
        (["create", "--tenant", "t", "--models", "a,,b"], 2, "model names"),
        (["create", "--tenant", "T"], 1, "no tenant name"),
        (["expire", "x"], 2, "--at"),
        (["limit", "zzzzzzzzzz"], 1, "nothing to change"),
        (["rotate", "zzzzzzzzzz", "--grace", "1y"], 2, "no duration"),
        (["rotate", "zzzzzzzzzz", "--grace", "99999999999999w"], 2, "too long"),
        (["show", "zzzzzzzzzz"], 1, "no key"),
        (["show", "???"], 1, "neither"),
        (["list", "--redis-url", "http://x"], 1, "Redis URL"),
        (["list", "--redis-url", "redis://:secret@127.0.0.1:1"], 1, "127.0.0.1:1"),
        ([], 2, "ACTION"),
        (["explode"], 2, "explode"),
    ],
)
def test_bad_input(run: Run, words: list[str], code: int, reason: str) -> None:
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert reason in err
    assert "secret" not in err
    assert "Traceback" not in err


def test_every_flag_is_explained(run: Run) -> None:
    for action in ("create", "list", "show", "limit", "disable", "enable", "expire", "rotate", "delete"):
        code, out, _ = run(action, "--help")
        assert code == 0
        for flag in ("--redis-url", "--config", "--json"):
            assert flag in out


def test_nothing_says_where(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLOUDACH_REDIS_URL")
    assert run("list")[0] == 2
    assert "cannot read" in run("list", "--config", str(tmp_path / "none"))[2]
    (tmp_path / "bad.yaml").write_text("models: []\n")
    code, _, err = run("list", "--config", str(tmp_path / "bad.yaml"))
    assert code == 2
    assert "models" in err


def test_a_password_of_any_characters(
    run: Run, own_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tenant: str
) -> None:
    """A Secret made by `echo` ends in a newline, and Valkey takes it as part of the password."""
    password = "a/b#c?d@e:f %41\n"
    with redis.Redis.from_url(own_server.url) as client:
        client.config_set("requirepass", password)
    monkeypatch.setenv("CLOUDACH_REDIS_URL", own_server.url)
    assert run("list")[0] == 1
    monkeypatch.setenv("CLOUDACH_REDIS_PASSWORD", password)
    made = _create(run, tenant)
    monkeypatch.delenv("CLOUDACH_REDIS_URL")
    config = tmp_path / "gateway.yaml"
    settings = f"redis: {{url: '{own_server.url}', password: '${{CLOUDACH_REDIS_PASSWORD}}'}}\n"
    config.write_text("models: [{id: m, upstreams: ['http://127.0.0.1:1']}]\n" + settings)
    listed = json.loads(run("list", "--json", "--config", str(config))[1])
    assert [key["id"] for key in listed] == [made["id"]]


def test_by_configuration(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tenant: str) -> None:
    """The embedded Valkey, whether it runs or not."""
    monkeypatch.delenv("CLOUDACH_REDIS_URL")
    config = tmp_path / "gateway.yaml"
    config.write_text(
        f"models: [{{id: m, upstreams: ['http://127.0.0.1:1']}}]\nredis: {{data_dir: {tmp_path / 'valkey'}}}\n"
    )
    first = _create(run, tenant, "--config", str(config))
    assert running_url(tmp_path / "valkey") is None
    with EmbeddedValkey(tmp_path / "valkey"):
        second = _create(run, tenant, "--config", str(config))
        assert running_url(tmp_path / "valkey") is not None
    monkeypatch.setenv("CLOUDACH_CONFIG", str(config))
    listed = json.loads(run("list", "--json")[1])
    assert [key["id"] for key in listed] == [first["id"], second["id"]]


def test_as_a_command(valkey_url: str, tenant: str) -> None:
    command = [str(Path(sys.executable).parent / "cloudach"), "keys", "create", "--tenant", tenant, "--json"]
    done = subprocess.run(
        [*command, "--redis-url", valkey_url], capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["tenant"] == tenant


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_typed_stored_shown_and_taken_away(
    run: Run, client: redis.Redis, tenant: str, name: str
) -> None:
    """Its names in KeyLimits are all that it takes."""
    limit = LIMITS[name]
    option = "--" + limit.shown.replace("_", "-")
    made = _create(run, tenant, option, "7")
    assert made[limit.shown] == 7
    assert [made[other.shown] for other in LIMITS.values() if other is not limit] == [None] * (len(LIMITS) - 1)
    record = f"cloudach:{{{tenant}}}:key:{made['id']}"
    assert client.hget(record, limit.stored) == "7"
    code, out, _ = run("limit", made["id"], option, limit.without, "--json")
    assert (code, json.loads(out)[limit.shown]) == (0, None)
    assert client.hget(record, limit.stored) == ""
    code, _, err = run("limit", made["id"], option, "0")
    assert code == 2
    assert limit.without in err
