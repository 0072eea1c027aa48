"""Gateways killed with SIGKILL, or cut off from Redis, with streams running: what is billed, by whom, how often."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admin.keys import NewKey
from cloudach_gateway.admission import Admission
from cloudach_gateway.admission.leases import Leases
from cloudach_gateway.admission.sweep import Sweep
from cloudach_gateway.store import layout

from tests.support.valkey import Valkey
from tests.support.waiting import until_async

from .conftest import Door

LEASE_TTL_S = 1.5  # who is kept from running for twice that is taken for dead
NOTED_EVERY = LEASE_TTL_S / 3


def _day() -> str:
    return time.strftime("%Y%m%d", time.gmtime())


@contextmanager
def _doomed(url: str, key: NewKey, streams: int, notes: str = "notes") -> Iterator[subprocess.Popen[str]]:
    script = str(Path(__file__).with_name("doomed_process.py"))
    process = subprocess.Popen(
        [sys.executable, script, url, key.api_key, str(streams), str(LEASE_TTL_S), notes],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _kill_after(process: subprocess.Popen[str], tokens: int, notes: int = 0) -> tuple[int, list[int]]:
    """SIGKILL once every stream has generated that many and noted it so often; how many it had in the end, and at its
    last notes."""
    assert process.stdout is not None
    line = ["0"]
    while int(line[0]) < tokens or len(line) <= notes:
        line = process.stdout.readline().split()
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    # A line that the end has cut short says less than the one before.
    lines = [line, *(each.split() for each in rest.splitlines(keepends=True) if each.endswith("\n"))]
    generated, *noted = map(int, lines[-1])
    return generated, noted


def _records(client: redis.Redis, tenant: str) -> list[dict[str, str]]:
    return [fields for _, fields in client.xrange(layout.records(tenant))]


async def _until_recorded(client: redis.Redis, tenant: str, count: int, within_s: float = 30) -> list[dict[str, str]]:
    async with asyncio.timeout(within_s):
        while len(_records(client, tenant)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.sleep(2 * LEASE_TTL_S)  # nobody writes more of them
    return _records(client, tenant)


async def test_four_gateways_find_what_a_killed_one_left_and_bill_it_once(
    valkey_url: str, client: redis.Redis, make_key, start_admission, tenant: str
) -> None:
    """All sweep at their own pace, none of them serves this tenant."""
    key = make_key(tokens=10**6)
    with _doomed(valkey_url, key, 30) as process:
        others = [await start_admission(lease_ttl_s=LEASE_TTL_S) for _ in range(4)]
        lost: list[int] = []
        for other in others:
            other.sweep._lost_gateways._on_lost = lost.append
        generated, noted = await asyncio.to_thread(_kill_after, process, 150, 3)
    records = await _until_recorded(client, tenant, 30)
    assert [record["id"].split(".")[1] for record in sorted(records, key=lambda r: int(r["id"].split(".")[1]))] == [
        str(number) for number in range(30)
    ]
    assert sum(lost) >= 30  # what other tests left is found as well
    assert {record["outcome"] for record in records} == {"lost"}
    assert {(record["route"], record["model"], record["key"]) for record in records} == {("r", "m", key.record.id)}
    assert {(record["prompt_tokens"], record["cached_tokens"]) for record in records} == {("7", "3")}
    # What is lost: the tokens since the last note, or since the one before, if the last was still on its way; and
    # those of the tick whose line did not come out any more.
    billed = [int(record["completion_tokens"]) for record in records]
    assert max(billed) <= generated + 1
    assert min(billed) >= noted[-2]
    totals = client.hgetall(layout.usage(tenant, key.record.id, _day()))
    assert totals == {
        "requests": "30", "prompt_tokens": "210", "cached_tokens": "90", "lost": "30",
        "completion_tokens": str(sum(int(record["completion_tokens"]) for record in records)),
    }  # fmt: skip
    assert client.exists(layout.open_keys(tenant), layout.leases(tenant, key.record.id)) == 0


async def test_a_deleted_keys_requests_are_billed(
    valkey_url: str, client: redis.Redis, make_key, key_store: KeyStore, start_admission, tenant: str
) -> None:
    key = make_key()
    with _doomed(valkey_url, key, 2, "silent") as process:
        await asyncio.to_thread(_kill_after, process, 5)
    keys.delete(key_store, key.record.id)
    await start_admission(lease_ttl_s=LEASE_TTL_S)
    records = await _until_recorded(client, tenant, 2)
    assert [(record["outcome"], record["completion_tokens"]) for record in records] == [("lost", "0")] * 2


async def test_a_key_in_use_is_seen_to_at_renewals(
    valkey_url: str, client: redis.Redis, make_key, start_admission, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for the sweep to come round."""
    monkeypatch.setattr(Sweep, "start", lambda self: None)
    key = make_key()
    admission = await start_admission(lease_ttl_s=LEASE_TTL_S)
    running = await Door(admission, key).ask()
    with _doomed(valkey_url, key, 3) as process:
        await asyncio.to_thread(_kill_after, process, 60)
    records = await _until_recorded(client, tenant, 3)
    assert len(records) == 3
    assert running.request_id not in {record["id"] for record in records}


async def test_a_paused_gateway_is_taken_for_dead_and_corrected(
    valkey_url: str, client: redis.Redis, make_key, start_admission, tenant: str
) -> None:
    """It goes on after SIGCONT: its streams are leased again; what it notes from then on is the rest."""
    key = make_key(concurrency=3)
    await start_admission(lease_ttl_s=LEASE_TTL_S)
    with _doomed(valkey_url, key, 2) as process:
        await asyncio.sleep(3 * NOTED_EVERY)
        os.kill(process.pid, signal.SIGSTOP)
        first = await _until_recorded(client, tenant, 2)
        assert len(first) == 2
        os.kill(process.pid, signal.SIGCONT)
        leases = layout.leases(tenant, key.record.id)
        await until_async(lambda: client.zcard(leases) == 2)
        generated, noted = await asyncio.to_thread(_kill_after, process, 300, 4)
    records = await _until_recorded(client, tenant, 4)
    assert sorted((record["id"][-2:], record["part"]) for record in records) == [
        (".0", "0"), (".0", "1"), (".1", "0"), (".1", "1"),
    ]  # fmt: skip
    billed = sum(int(record["completion_tokens"]) for record in records)
    assert 2 * noted[-2] <= billed <= 2 * (generated + 1)
    totals = client.hgetall(layout.usage(tenant, key.record.id, _day()))
    assert (totals["requests"], totals["lost"], totals["prompt_tokens"]) == ("2", "2", "14")
    assert int(totals["completion_tokens"]) == billed


async def test_an_outage_of_redis_loses_no_request(start_admission, own_server: Valkey) -> None:
    """Longer than leases live, twice over: the gateways that come back first leave the others time to do so."""
    with KeyStore(own_server.url) as store:
        key = keys.create(store, tenant="acme")
    first: Admission = await start_admission(own_server.url, timeout_s=2.0, lease_ttl_s=LEASE_TTL_S)
    second: Admission = await start_admission(own_server.url, timeout_s=2.0, lease_ttl_s=LEASE_TTL_S)
    grants = [(admission, await Door(admission, key).ask()) for admission in (first, second) for _ in range(5)]
    await asyncio.sleep(LEASE_TTL_S)
    own_server.kill()
    await asyncio.sleep(2.5 * LEASE_TTL_S)
    own_server.start()
    await until_async(lambda: not (first.degraded or second.degraded))
    await asyncio.sleep(2.5 * LEASE_TTL_S)
    for admission, grant in grants:
        await admission.settle(grant, prompt_tokens=1, completion_tokens=2, outcome="finished")
    with redis.Redis.from_url(own_server.url, decode_responses=True) as client:
        records = _records(client, "acme")
    assert [(record["part"], record["outcome"]) for record in records] == [("0", "finished")] * 10


async def test_nobody_is_buried_right_after_a_connect(
    valkey_url: str, client: redis.Redis, make_key, start_admission, tenant: str
) -> None:
    key = make_key()
    with _doomed(valkey_url, key, 1) as process:
        await asyncio.to_thread(_kill_after, process, 1)
    await asyncio.sleep(3 * LEASE_TTL_S)
    newcomer: Admission = await start_admission(lease_ttl_s=LEASE_TTL_S)
    assert await newcomer.sweep.bury(tenant, key.record.id) == 0
    await asyncio.sleep(1.1 * LEASE_TTL_S)
    await newcomer.sweep.bury(tenant, key.record.id)  # or the sweep itself was faster
    assert len(_records(client, tenant)) == 1


async def test_a_broken_note_stops_no_renewal(start_admission, make_key, tenant: str, client: redis.Redis) -> None:
    """It is the caller's code that says how far a request is."""
    admission = await start_admission(lease_ttl_s=LEASE_TTL_S)
    door = Door(admission, make_key())
    grant = await door.ask()

    asked = asyncio.Event()

    def broken() -> tuple[int, int, int]:
        asked.set()
        raise RuntimeError("no idea")

    def noted() -> list[str]:
        (note,) = client.hvals(layout.running(tenant, door.key.record.id))
        return list(note.split()[1:4])

    grant.progress = broken
    await asyncio.wait_for(asked.wait(), 20)
    grant.progress = lambda: (1, 2, 0)
    await until_async(lambda: noted() == ["1", "2", "0"])


async def test_a_round_of_the_sweep_is_taken_in_small_runs(
    start_admission, make_key, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sweep, "start", lambda self: None)
    monkeypatch.setattr(Leases, "start", lambda self: None)
    admission: Admission = await start_admission(lease_ttl_s=0.1)
    doors = [Door(admission, make_key()) for _ in range(250)]  # more than one SSCAN brings
    for door in doors:
        await door.ask()
    await asyncio.sleep(0.3)
    looked: list[str] = []
    bury = admission.sweep.bury

    async def counted(of: str, key_id: str) -> int:
        looked.extend([key_id] if of == tenant else [])
        return await bury(of, key_id)

    monkeypatch.setattr(admission.sweep, "bury", counted)
    runs = 1
    while not await admission.sweep.run(20):
        runs += 1
    assert set(looked) == {door.key.record.id for door in doors}
    assert runs >= 250 // 20
