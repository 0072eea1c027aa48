"""`cloudach usage …` as it is typed: totals, records for billing, reconciliation, trimming."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.cli import main, usage_records
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admin.keys import NewKey
from cloudach_gateway.admin.usage_store import UsageStore
from cloudach_gateway.admission.grants import Settlement
from cloudach_gateway.admission.script_calls import Encoder
from cloudach_gateway.store import layout

Run = Callable[..., tuple[int, str, str]]
Spend = Callable[..., str]

_numbers = itertools.count()
DAY_MS = 86_400_000


def _day(ago: int = 0) -> str:
    """YYYY-MM-DD, UTC."""
    return f"{datetime.now(UTC) - timedelta(days=ago):%Y-%m-%d}"


@pytest.fixture
def run(valkey_url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exit code, stdout, stderr."""
    monkeypatch.setenv("CLOUDACH_REDIS_URL", valkey_url)
    monkeypatch.delenv("CLOUDACH_CONFIG", raising=False)

    def typed(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["usage", *words])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return typed


@pytest.fixture
def spend(client: redis.Redis) -> Spend:
    """Settles one request of a key, as a gateway does; returns its id."""
    encoder = Encoder()

    def settle(
        key: NewKey, prompt: int = 10, completion: int = 20, cached: int = 0, *, ago: int = 0, **rest: Any
    ) -> str:
        name = f"req_{next(_numbers)}"
        done = Settlement(
            key.record.tenant, key.record.id, name, "", _day(ago).replace("-", ""), prompt, completion, cached,
            **{"outcome": "finished", "model": "m", "route": "chat/completions", "duration_ms": 5, **rest},
        )  # fmt: skip
        names, args = encoder.settle(done)
        assert client.eval(encoder.limiter.settle.source, len(names), *names, *args) == 1
        return name

    return settle


def _json(run: Run, *words: str) -> list[dict[str, Any]]:
    code, out, err = run(*words, "--format", "json")
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def _lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


# totals


def test_totals_by_day_key_and_tenant(run: Run, spend: Spend, make_key, key_store: KeyStore, tenant: str) -> None:
    one, two = sorted((make_key(), make_key()), key=lambda key: key.record.id)
    spend(one, 1, 2, 3, failovers=2)
    spend(one, 10, 20, 30, ago=1, outcome="cancelled")
    spend(two, 100, 200, ago=1, outcome="failed")
    keys.delete(key_store, two.record.id)
    of = ("totals", "--tenant", tenant, "--from", _day(1), "--to", _day())
    rest = dict.fromkeys(layout.USAGE_FIELDS, 0) | {"requests": 1}
    rows = _json(run, *of)
    assert rows == [
        {"day": _day(1), "tenant": tenant, "key": one.record.id, **rest, "prompt_tokens": 10, "completion_tokens": 20,
         "cached_tokens": 30, "cancelled": 1},
        {"day": _day(1), "tenant": tenant, "key": two.record.id, **rest, "prompt_tokens": 100, "completion_tokens": 200,
         "failed": 1},
        {"day": _day(), "tenant": tenant, "key": one.record.id, **rest, "prompt_tokens": 1, "completion_tokens": 2,
         "cached_tokens": 3, "finished": 1, "failovers": 2},
    ]  # fmt: skip
    by_day = _json(run, *of, "--by", "day")
    assert [(row["day"], row["requests"], row["completion_tokens"]) for row in by_day] == [
        (_day(1), 2, 220),
        (_day(), 1, 2),
    ]
    by_key = _json(run, *of, "--by", "key")
    assert [(row["tenant"], row["key"], row["prompt_tokens"]) for row in by_key] == [
        (tenant, one.record.id, 11),
        (tenant, two.record.id, 100),
    ]
    (by_tenant,) = _json(run, *of, "--by", "tenant")
    assert (by_tenant["tenant"], by_tenant["requests"], by_tenant["prompt_tokens"]) == (tenant, 3, 111)
    (only,) = _json(run, *of, "--key", two.api_key)
    assert (only["key"], only["requests"]) == (two.record.id, 1)
    assert tenant in {row["tenant"] for row in _json(run, "totals", "--by", "tenant", "--from", _day(1))}


def test_totals_for_people_and_spreadsheets(run: Run, spend: Spend, make_key, tenant: str) -> None:
    key = make_key()
    spend(key, 1, 2)
    _, out, _ = run("totals", "--tenant", tenant)
    head, row = out.splitlines()
    assert head.split()[:6] == ["DAY", "TENANT", "KEY", "REQUESTS", "PROMPT", "TOKENS"]
    assert row.split()[:6] == [_day(), tenant, key.record.id, "1", "1", "2"]
    _, out, _ = run("totals", "--tenant", tenant, "--format", "csv", "--by", "key")
    (found,) = csv.DictReader(io.StringIO(out))
    assert list(found) == ["tenant", "key", *layout.USAGE_FIELDS]
    assert (found["key"], found["completion_tokens"], found["lost"]) == (key.record.id, "2", "0")


def test_the_default_is_this_month(run: Run, spend: Spend, make_key, tenant: str) -> None:
    key = make_key()
    spend(key)
    spend(key, ago=45)
    assert [row["day"] for row in _json(run, "totals", "--tenant", tenant)] == [_day()]
    assert len(_json(run, "totals", "--tenant", tenant, "--from", "2000-01-01")) == 2
    earlier = _json(run, "totals", "--tenant", tenant, "--to", _day(45))
    assert [row["day"] for row in earlier] == [_day(45)]


def test_totals_of_a_time_before_the_index_of_days(
    run: Run, spend: Spend, make_key, client: redis.Redis, tenant: str
) -> None:
    spend(make_key(), 3, 4)
    client.delete(layout.used(tenant, _day().replace("-", "")))
    assert [row["prompt_tokens"] for row in _json(run, "totals", "--tenant", tenant)] == [3]
    assert run("reconcile", "--tenant", tenant)[0] == 0


# records


def test_a_look_at_records(run: Run, spend: Spend, make_key, client: redis.Redis, tenant: str) -> None:
    key = make_key()
    names = [spend(key, number, 1, ttft_ms=12) for number in range(3)]
    code, out, err = run("records", "--tenant", tenant)
    assert (code, err) == (0, "")
    records = _lines(out)
    assert [(record["id"], record["prompt_tokens"]) for record in records] == list(zip(names, range(3), strict=True))
    entry = client.xrange(layout.records(tenant))[0][0]
    at_ms = records[0].pop("at_ms")
    assert abs(at_ms - int(entry.split("-")[0])) <= 1
    assert records[0] == {
        "entry": entry, "v": 1, "id": names[0], "part": 0, "tenant": tenant, "key": key.record.id, "model": "m",
        "route": "chat/completions", "prompt_tokens": 0, "completion_tokens": 1, "cached_tokens": 0, "ttft_ms": 12,
        "duration_ms": 5, "outcome": "finished", "failovers": 0, "day": _day().replace("-", ""),
    }  # fmt: skip
    spend(key)
    assert _lines(run("records", "--tenant", tenant)[1])[3]["ttft_ms"] is None
    _, out, _ = run("records", "--tenant", tenant, "--format", "csv", "--count", "1")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["entry"], row["id"], row["ttft_ms"]) == (entry, names[0], "12")


def test_records_of_some_days(run: Run, client: redis.Redis, make_key, tenant: str) -> None:
    make_key()
    midnight = int(datetime.fromisoformat(f"{_day()}T00:00:00+00:00").timestamp()) * 1000
    for at in (midnight - DAY_MS - 1, midnight - DAY_MS, midnight - 1, midnight):
        client.xadd(layout.records(tenant), {"id": f"{at - midnight}", "v": "1"}, id=f"{at}-0")

    def found(*words: str) -> list[int]:
        return [int(record["id"]) for record in _lines(run("records", "--tenant", tenant, *words)[1])]

    assert found("--from", _day(1), "--to", _day(1)) == [-DAY_MS, -1]
    assert found("--from", _day()) == [0]
    assert found("--to", _day(2)) == [-DAY_MS - 1]


def test_more_records_than_one_read_brings(run: Run, client: redis.Redis, make_key, tenant: str) -> None:
    make_key()
    pipe = client.pipeline(transaction=False)
    for number in range(2500):
        pipe.xadd(layout.records(tenant), {"id": str(number)})
    pipe.execute()
    assert [record["id"] for record in _lines(run("records", "--tenant", tenant)[1])] == list(map(str, range(2500)))
    assert len(_lines(run("records", "--tenant", tenant, "--count", "1500")[1])) == 1500
    group = ("records", "--tenant", tenant, "--group", "billing", "--consumer", "a", "--ack")
    assert len(_lines(run(*group, "--count", "1500")[1])) == 1500
    assert [record["id"] for record in _lines(run(*group)[1])] == list(map(str, range(1500, 2500)))


def test_billing_gets_each_record_until_it_acknowledges(
    run: Run, spend: Spend, make_key, client: redis.Redis, tenant: str
) -> None:
    key = make_key()
    names = [spend(key) for _ in range(5)]

    def read(consumer: str, *words: str) -> list[str]:
        code, out, _ = run("records", "--tenant", tenant, "--group", "billing", "--consumer", consumer, *words)
        assert code == 0
        return [record["id"] for record in _lines(out)]

    assert read("a", "--count", "2") == names[:2]
    assert read("b", "--count", "2") == names[2:4], "a's are a's"
    names.append(spend(key))
    assert read("a", "--count", "3") == [*names[:2], names[4]], "first what it has not acknowledged"
    assert read("a", "--ack") == [*names[:2], names[4], names[5]]
    assert read("a", "--ack") == []
    assert read("b", "--ack") == names[2:4]
    assert client.xinfo_groups(layout.records(tenant))[0]["pending"] == 0


def test_a_group_of_ones_own(run: Run, spend: Spend, make_key, tenant: str) -> None:
    name = spend(make_key())
    words = ("records", "--tenant", tenant, "--group", "audit", "--consumer", "a", "--ack")
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert "--create-group" in err
    assert [record["id"] for record in _lines(run(*words, "--create-group")[1])] == [name]
    assert run(*words, "--create-group")[:2] == (0, "")


def test_billing_may_come_before_the_first_record(run: Run, spend: Spend, make_key, tenant: str) -> None:
    key = make_key()
    words = ("records", "--tenant", tenant, "--group", "billing", "--consumer", "a", "--ack")
    assert run(*words)[:2] == (0, "")
    name = spend(key)
    assert [record["id"] for record in _lines(run(*words)[1])] == [name]


def test_records_that_were_dropped_unacknowledged_do_not_stand_in_the_way(
    run: Run, spend: Spend, make_key, client: redis.Redis, tenant: str
) -> None:
    key = make_key()
    names = [spend(key) for _ in range(3)]
    words = ("records", "--tenant", tenant, "--group", "billing", "--consumer", "a")
    run(*words)
    client.xtrim(layout.records(tenant), 1, approximate=False)
    assert [record["id"] for record in _lines(run(*words, "--ack")[1])] == names[2:]
    assert client.xinfo_groups(layout.records(tenant))[0]["pending"] == 0


def _command(valkey_url: str, *words: str) -> list[str]:
    return [str(Path(sys.executable).parent / "cloudach"), "usage", *words, "--redis-url", valkey_url]


@pytest.mark.parametrize("group", [[], ["--group", "billing", "--consumer", "a", "--ack"]])
def test_following(valkey_url: str, spend: Spend, make_key, client: redis.Redis, tenant: str, group: list[str]) -> None:
    """Records appear as they are written; Ctrl-C ends it well."""
    key = make_key()
    names = [spend(key)]
    command = _command(valkey_url, "records", "--tenant", tenant, "--follow", *group)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = [json.loads(process.stdout.readline())["id"]]
            for _ in range(3):
                names.append(spend(key))
                found.append(json.loads(process.stdout.readline())["id"])
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert found == names
    assert (process.returncode, out, err) == (0, "", "")
    if group:
        assert client.xinfo_groups(layout.records(tenant))[0]["pending"] == 0


def test_what_was_written_when_ctrl_c_came_is_acknowledged(
    valkey_url: str, spend: Spend, make_key, client: redis.Redis, tenant: str
) -> None:
    """Or else the next run would hand it out again."""

    class Interrupted(io.StringIO):
        def flush(self) -> None:
            if self.getvalue():
                signal.raise_signal(signal.SIGINT)

    name = spend(make_key())
    out = Interrupted()
    with UsageStore(valkey_url) as store:
        store.make_group(tenant, "billing")
        writer = usage_records.Writer("jsonl", out)
        code = usage_records.consume(store, tenant, "billing", "a", writer, most=None, follow=True, acknowledge=True)
    assert (code, json.loads(out.getvalue())["id"]) == (0, name)
    assert client.xinfo_groups(layout.records(tenant))[0]["pending"] == 0


def test_what_nobody_reads_is_not_acknowledged(
    valkey_url: str, spend: Spend, make_key, client: redis.Redis, tenant: str
) -> None:
    """As with `| head -1`."""
    key = make_key()
    spend(key)
    group = ["--group", "billing", "--consumer", "a", "--ack", "--follow"]
    command = _command(valkey_url, "records", "--tenant", tenant, *group)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            deadline = time.monotonic() + 20
            while client.xinfo_groups(layout.records(tenant))[0]["pending"] and time.monotonic() < deadline:
                time.sleep(0.01)
            process.stdout.close()
            spend(key)
            assert process.wait(20) == 1
            assert process.stderr.read() == ""
        finally:
            process.kill()
    assert client.xinfo_groups(layout.records(tenant))[0]["pending"] == 1


# reconcile


def test_records_and_totals_agree(run: Run, spend: Spend, make_key, tenant: str) -> None:
    one, two = make_key(), make_key()
    for number in range(20):
        spend(one if number % 3 else two, number, 2 * number, outcome=("finished", "cancelled", "failed")[number % 3])
    code, out, _ = run("reconcile", "--tenant", tenant)
    assert (code, out) == (0, f"{_day()}: totals and records agree, 20 requests\n")
    assert run("reconcile", "--tenant", tenant, "--format", "json")[:2] == (0, "[]\n")
    assert run("reconcile", "--tenant", tenant, "--day", _day(3))[0] == 0


def test_differences_are_told(run: Run, spend: Spend, make_key, client: redis.Redis, tenant: str) -> None:
    key = make_key()
    name = spend(key, 10, 20)
    spend(key, 1, 2)
    today = _day().replace("-", "")
    client.hincrby(layout.usage(tenant, key.record.id, today), "completion_tokens", 5)
    ((_, fields), _) = client.xrange(layout.records(tenant))
    client.xadd(layout.records(tenant), fields)  # twice
    client.xdel(layout.records(tenant), client.xrange(layout.records(tenant))[1][0])
    code, out, _ = run("reconcile", "--tenant", tenant, "--format", "json")
    assert code == 1
    of = {"tenant": tenant, "key": key.record.id}
    assert json.loads(out) == [
        {**of, "field": "requests", "totals": 2, "records": 1},
        {**of, "field": "prompt_tokens", "totals": 11, "records": 10},
        {**of, "field": "completion_tokens", "totals": 27, "records": 20},
        {**of, "field": "finished", "totals": 2, "records": 1},
        {"tenant": tenant, "key": "", "field": f"twice: {name}", "totals": 1, "records": 2},
    ]
    code, out, _ = run("reconcile", "--tenant", tenant)
    assert code == 1
    assert out.splitlines()[0].split() == ["TENANT", "KEY", "FIELD", "TOTALS", "RECORDS"]


def test_it_agrees_while_requests_end(run: Run, spend: Spend, make_key, valkey_url: str, tenant: str) -> None:
    """Both are looked at as they were at one moment."""
    keys_ = [make_key() for _ in range(3)]
    spend(keys_[0])
    writer = """
import sys, redis
from cloudach_gateway.admission.grants import Settlement
from cloudach_gateway.admission.script_calls import Encoder
client, encoder = redis.Redis.from_url(sys.argv[1]), Encoder()
for number in range(10**9):
    name = sys.argv[4:][number // 50 % len(sys.argv[4:])]
    keys, args = encoder.settle(Settlement(sys.argv[2], name, f"w{number}", "", sys.argv[3], 1, 2, 0, "finished"))
    client.eval(encoder.limiter.settle.source, len(keys), *keys, *args)
    if number == 10: print("writing", flush=True)
"""
    command = [sys.executable, "-c", writer, valkey_url, tenant, _day().replace("-", "")]
    command += [key.record.id for key in keys_]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        counts = []
        deadline = time.monotonic() + 30
        while len(counts) < 10 or (counts[-1] == counts[0] and time.monotonic() < deadline):
            code, out, _ = run("reconcile", "--tenant", tenant)
            assert code == 0, out
            counts.append(int(out.split()[-2]))
        assert counts[-1] > counts[0]
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_days_whose_records_are_dropped_cannot_be_compared(
    run: Run, make_key, spend: Spend, client: redis.Redis, tenant: str
) -> None:
    key = make_key()
    spend(key)
    client.set(layout.trimmed(tenant), int(time.time() * 1000))
    code, out, err = run("reconcile", "--tenant", tenant)
    assert (code, out) == (1, "")
    assert "dropped" in err


# trim


def test_trimming(run: Run, make_key, client: redis.Redis, tenant: str) -> None:
    make_key()
    now_ms = int(time.time() * 1000)
    stream = layout.records(tenant)
    pipe = client.pipeline(transaction=False)
    for number in range(1000):
        pipe.xadd(stream, {"id": str(number)}, id=f"{now_ms - 10 * DAY_MS + number * DAY_MS // 100}-0")
    pipe.xgroup_create(stream, "billing", id="0")
    pipe.execute()
    assert run("trim", "--tenant", tenant)[:2] == (0, f"{tenant}: 0 records dropped\n")
    run("records", "--tenant", tenant, "--group", "billing", "--consumer", "a", "--ack", "--count", "250")
    assert run("trim", "--tenant", tenant)[1] == f"{tenant}: 200 records dropped\n"
    assert run("trim", "--tenant", tenant, "--unread", "--older-than", "5d")[1] == f"{tenant}: 300 records dropped\n"
    assert client.xlen(stream) == 500
    assert f"{tenant}: 0 records dropped\n" in run("trim")[1], "every tenant's"


# mistakes


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        ([], 2, "ACTION"),
        (["totals", "--tenant", "T"], 2, "--tenant: 'T'"),
        (["totals", "--tenant", "nobody_here"], 1, "--tenant: there is no tenant nobody_here"),
        (["totals", "--key", "x"], 2, "--key: 'x'"),
        (["totals", "--from", "2026-13-01"], 2, "--from: '2026-13-01' is no day"),
        (["totals", "--to", "yesterday"], 2, "--to: 'yesterday' is no day"),
        (["totals", "--from", "2026-02-01", "--to", "2026-01-31"], 2, "--from: 2026-02-01 is after 2026-01-31"),
        (["totals", "--by", "model"], 2, "--by"),
        (["totals", "--format", "xml"], 2, "--format"),
        (["records"], 2, "--tenant"),
        (["records", "--tenant", "nobody_here"], 1, "--tenant"),
        (["records", "--tenant", "x", "--ack"], 2, "--ack: only with --group"),
        (["records", "--tenant", "x", "--consumer", "a"], 2, "--consumer: only with --group"),
        (["records", "--tenant", "x", "--group", "billing"], 2, "--consumer: needed"),
        (["records", "--tenant", "x", "--group", "a b", "--consumer", "a"], 2, "--group: 'a b'"),
        (
            ["records", "--tenant", "x", "--group", "g", "--consumer", "a", "--from", "2026-01-01"],
            2,
            "--from: not with",
        ),
        (["records", "--tenant", "x", "--follow", "--to", "2026-01-01"], 2, "--to: not with --follow"),
        (["records", "--tenant", "x", "--count", "0"], 2, "--count: '0'"),
        (["reconcile", "--day", "1"], 2, "--day: '1'"),
        (["reconcile", "--tenant", "nobody_here"], 1, "--tenant"),
        (["trim", "--older-than", "1y"], 2, "--older-than: '1y'"),
        (["totals", "--redis-url", "http://x"], 1, "Redis URL"),
        (["totals", "--redis-url", "redis://:secret@127.0.0.1:1"], 1, "Redis at 127.0.0.1:1"),
    ],
)
def test_bad_input(run: Run, words: list[str], code: int, reason: str) -> None:
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert reason in err
    assert "secret" not in err
    assert "Traceback" not in err


def test_every_flag_is_explained(run: Run) -> None:
    flags = {
        "totals": ["--tenant", "--key", "--from", "--to", "--by", "--format"],
        "records": ["--tenant", "--from", "--to", "--group", "--consumer", "--ack", "--create-group", "--count",
                    "--follow", "--format"],
        "reconcile": ["--tenant", "--day", "--format"],
        "trim": ["--tenant", "--older-than", "--unread"],
    }  # fmt: skip
    for action, own in flags.items():
        code, out, _ = run(action, "--help")
        assert code == 0
        for flag in (*own, "--redis-url", "--config"):
            assert flag in out


def test_a_whole_key_is_not_shown_in_an_error(run: Run, make_key) -> None:
    secret = make_key().api_key + "?"
    code, _, err = run("totals", "--key", secret)
    assert code == 2
    assert secret not in err
    assert os.linesep in err
