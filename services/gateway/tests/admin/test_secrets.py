"""A command that made a secret prints it, whatever happens after; no date or duration breaks a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.cli import main
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admission.api_keys import parse_api_key
from cloudach_gateway.store.trouble import StoreDown

Run = Callable[..., tuple[int, str, str]]
COMMAND = Path(sys.executable).with_name("cloudach")


@pytest.fixture
def run(valkey_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exit code, stdout, stderr."""
    monkeypatch.setenv("CLOUDACH_REDIS_URL", valkey_url)
    monkeypatch.delenv("CLOUDACH_CONFIG", raising=False)

    def typed(*words: str) -> tuple[int, str, str]:
        try:
            code = main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return typed


def as_a_command(valkey_url: str, words: Sequence[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "CLOUDACH_REDIS_URL": valkey_url, **options.pop("env", {})}  # type: ignore[dict-item]
    command = [COMMAND, *words]
    return subprocess.run(command, env=env, stderr=subprocess.PIPE, timeout=60, check=False, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "when",
    ["9999-12-31T23:59:59-05:00", "9999-12-31", "0001-01-01T00:00:00+05:00", "1969-12-31", "3000000d", "9" * 30 + "d"],
)
@pytest.mark.parametrize("words", [["create", "--tenant", "TENANT", "--expires"], ["expire", "KEY", "--at"]])
def test_absurd_times_are_refused_by_name(run: Run, make_key, tenant: str, words: list[str], when: str) -> None:
    made = make_key()
    typed = [{"TENANT": tenant, "KEY": made.record.id}.get(word, word) for word in words]
    code, out, err = run("keys", *typed, when)
    assert (code, out) == (2, "")
    assert typed[-1] in err
    assert run("keys", "list", "--tenant", tenant)[0] == 0


@pytest.mark.parametrize("grace", ["3000000d", "99999999w", "9" * 20 + "s"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_absurd_grace_rotates_nothing(run: Run, make_key, grace: str, form: list[str]) -> None:
    made = make_key()
    code, out, err = run("keys", "rotate", made.record.id, "--grace", grace, *form)
    assert (code, out) == (2, "")
    assert "--grace" in err
    assert run("keys", "show", made.api_key)[0] == 0, "the key is as it was"


def test_the_furthest_times_that_are_taken(run: Run, make_key, tenant: str) -> None:
    made = make_key()
    assert run("keys", "expire", made.record.id, "--at", "9998-12-31T23:59:59-12:00")[0] == 0
    assert run("keys", "expire", made.record.id, "--at", "36500d")[0] == 0
    code, out, _ = run("keys", "rotate", made.record.id, "--grace", "36500d", "--json")
    assert code == 0
    assert json.loads(out)["previous_secret_valid_until"] > "2100"
    assert run("keys", "list", "--tenant", tenant)[0] == 0


@pytest.mark.parametrize("stored", ["253402318799000", "99999999999999999", "-99999999999999"])
def test_a_date_that_is_stored_already_breaks_no_list(
    run: Run, make_key, client: redis.Redis, tenant: str, stored: str
) -> None:
    made = make_key()
    client.hset(f"cloudach:{{{tenant}}}:key:{made.record.id}", "expires_at_ms", stored)
    for words in (["list"], ["list", "--json"], ["show", made.record.id]):
        code, out, _ = run("keys", *words)
        assert code == 0
        assert made.record.id in out


@pytest.mark.parametrize(
    "words",
    [
        ["totals", "--to", "9999-12-31"],
        ["totals", "--to", "9998-12-31"],
        ["totals", "--from", "0001-01-01"],
        ["totals", "--from", "9998-12-30", "--to", "9998-12-31"],
        ["records", "--tenant", "TENANT", "--to", "9999-12-31"],
        ["records", "--tenant", "TENANT", "--from", "0001-01-01"],
        ["records", "--tenant", "TENANT", "--from", "1970-01-01", "--to", "9998-12-31"],
        ["reconcile", "--tenant", "TENANT", "--day", "0001-01-01"],
        ["reconcile", "--tenant", "TENANT", "--day", "1970-01-01"],
        ["reconcile", "--tenant", "TENANT", "--day", "9999-12-31"],
        ["trim", "--tenant", "TENANT", "--older-than", "9999999d"],
        ["trim", "--tenant", "TENANT", "--older-than", "36500d"],
    ],
)
def test_no_day_breaks_a_usage_command(run: Run, make_key, tenant: str, words: list[str]) -> None:
    """Each command but `totals` is about this test's tenant: what another test trimmed, no day can bring back."""
    make_key()
    code, _, err = run("usage", *(tenant if word == "TENANT" else word for word in words))
    assert (code, err) == (0, "") or (code == 2 and any(word in err for word in words if word.startswith("--")))


@pytest.mark.parametrize("action", ["create", "rotate"])
def test_the_first_line_is_enough_for_head(valkey_url: str, make_key, tenant: str, action: str) -> None:
    which = [make_key().record.id] if action == "rotate" else ["--tenant", tenant]
    reader, writer = os.pipe()
    with subprocess.Popen(["head", "-1"], stdin=reader, stdout=subprocess.PIPE) as head:
        os.close(reader)
        done = as_a_command(valkey_url, ["keys", action, *which], stdout=writer)
        os.close(writer)
        said = head.communicate()[0].decode().strip()
    assert done.stderr == b""
    with KeyStore(valkey_url) as store:
        assert store.digest(tenant, parse_api_key(said).key_id) == parse_api_key(said).digest


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("action", ["create", "rotate"])
@pytest.mark.parametrize("stdout", ["closed", "full"])
def test_a_secret_that_stdout_does_not_take_is_said_on_stderr(
    valkey_url: str, make_key, tenant: str, action: str, form: list[str], stdout: str
) -> None:
    which = [make_key().record.id] if action == "rotate" else ["--tenant", tenant]
    if stdout == "full":
        writer = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, writer = os.pipe()
        os.close(reader)
    done = as_a_command(valkey_url, ["keys", action, *which, *form], stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    [said] = [word for word in done.stderr.decode().split() if word.startswith("sk-cld-")]
    with KeyStore(valkey_url) as store:
        assert store.digest(tenant, parse_api_key(said).key_id) == parse_api_key(said).digest


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_name_that_the_terminal_cannot_show(valkey_url: str, tenant: str, form: list[str]) -> None:
    words = ["keys", "create", "--tenant", tenant, "--name", "Zoë 漢字", *form]
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    done = as_a_command(valkey_url, words, stdout=subprocess.PIPE, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    if form:
        made = json.loads(done.stdout)
        assert made["name"] == "Zoë 漢字"
        parse_api_key(made["key"])
    else:
        parse_api_key(done.stdout.decode().splitlines()[0])


@pytest.mark.parametrize("words", [["keys", "list"], ["keys", "show", "KEY"], ["usage", "totals"]])
@pytest.mark.parametrize("full", [False, True])
def test_nobody_reads(valkey_url: str, make_key, words: list[str], full: bool) -> None:
    made = make_key()
    typed = [made.record.id if word == "KEY" else word for word in words]
    if full:
        writer = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, writer = os.pipe()
        os.close(reader)
    done = as_a_command(valkey_url, typed, stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert (b"No space left" in done.stderr) == full


@pytest.mark.parametrize("action", ["create", "rotate"])
def test_a_redis_that_is_lost_before_it_answers(
    run: Run, key_store: KeyStore, make_key, tenant: str, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """The key may be in force: who reads it can try."""
    which = [make_key().record.id] if action == "rotate" else ["--tenant", tenant]
    method = "change" if action == "rotate" else "add"
    real = getattr(KeyStore, method)

    def lost(*args: object, **more: object) -> None:
        real(*args, **more)
        raise StoreDown("Redis went away")

    monkeypatch.setattr(KeyStore, method, lost)
    code, out, err = run("keys", action, *which)
    assert (code, out) == (1, "")
    assert "may be in force" in err
    [said] = [word for word in err.split() if word.startswith("sk-cld-")]
    assert key_store.digest(tenant, parse_api_key(said).key_id) == parse_api_key(said).digest


def test_an_interrupt_waits_until_the_secret_is_said(valkey_url: str, tenant: str, tmp_path: Path) -> None:
    """Ctrl-C between the making and the printing."""
    program = f"""
import os, signal, sys
from cloudach_gateway.admin.cli import main
from cloudach_gateway.admin.key_store import KeyStore
real = KeyStore.add
def add(*args):
    real(*args)
    os.kill(os.getpid(), signal.SIGINT)
KeyStore.add = add
sys.exit(main(["keys", "create", "--tenant", "{tenant}"]))
"""
    env = {**os.environ, "CLOUDACH_REDIS_URL": valkey_url}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    parse_api_key(done.stdout.splitlines()[0])
    assert "Traceback" not in done.stderr


def test_earlier_secrets_keep_their_grace(run: Run, key_store: KeyStore, make_key, tenant: str) -> None:
    """A second rotation ends no other secret's grace; it says which ones work."""
    made = make_key()
    one = run("keys", "rotate", made.record.id, "--grace", "2d", "--json")
    two = run("keys", "rotate", made.record.id, "--grace", "1h", "--json")
    told = [json.loads(out) for _, out, _ in (one, two)]
    assert told[0]["earlier_secrets_valid_until"] == []
    assert told[1]["earlier_secrets_valid_until"] == [told[0]["previous_secret_valid_until"]]
    _, out, _ = run("keys", "show", made.record.id)
    assert told[0]["previous_secret_valid_until"] in out
    assert told[1]["previous_secret_valid_until"] in out


def test_a_grace_of_none_ends_all_and_says_so(run: Run, make_key) -> None:
    made = make_key()
    assert run("keys", "rotate", made.record.id, "--grace", "2d")[0] == 0
    code, out, err = run("keys", "rotate", made.record.id, "--grace", "0", "--json")
    assert code == 0
    assert json.loads(out)["earlier_secrets_valid_until"] == []
    assert "an earlier secret, valid until" in err


def test_so_many_earlier_secrets_are_too_many(run: Run, make_key) -> None:
    made = make_key()
    for _ in range(keys.MOST_EARLIER + 1):
        assert run("keys", "rotate", made.record.id, "--grace", "2d")[0] == 0
    code, out, err = run("keys", "rotate", made.record.id, "--grace", "2d")
    assert (code, out) == (1, "")
    assert "--grace 0" in err
