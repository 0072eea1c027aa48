"""Usage records: one for each settled request, for billing to read at least once and count exactly once."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admission import Grant
from cloudach_gateway.store import layout

from tests.support.valkey import Valkey

from .conftest import Door


def _records(client: redis.Redis, tenant: str) -> list[dict[str, str]]:
    return [fields for _, fields in client.xrange(layout.records(tenant))]


async def test_what_a_record_says(start_admission, make_key, client: redis.Redis, tenant: str) -> None:
    key = make_key()
    admission = await start_admission()
    began_ms = int(time.time() * 1000)
    grant = await admission.admit(
        key.api_key, request_id="req_1", models=("a", "b"), tokens=9, fingerprint="f", model="b", route="completions"
    )
    await admission.settle(
        grant, prompt_tokens=10, completion_tokens=20, cached_tokens=4, outcome="failed",
        ttft_s=0.0126, duration_s=1.5004, failovers=2,
    )  # fmt: skip
    grant = await admission.admit(key.api_key, request_id="req_2", models=("a", "b"), tokens=9, fingerprint="g")
    await admission.settle(grant, prompt_tokens=0, completion_tokens=0, outcome="cancelled")
    first, second = _records(client, tenant)
    assert began_ms - 5 <= int(first.pop("at_ms")) <= int(second.pop("at_ms")) <= time.time() * 1000 + 5
    common = {
        "v": "1",
        "part": "0",
        "tenant": tenant,
        "key": key.record.id,
        "day": time.strftime("%Y%m%d", time.gmtime()),
    }
    assert first == common | {
        "id": "req_1", "model": "b", "route": "completions", "outcome": "failed", "failovers": "2",
        "prompt_tokens": "10", "completion_tokens": "20", "cached_tokens": "4", "ttft_ms": "13", "duration_ms": "1500",
    }  # fmt: skip
    assert second == common | {
        "id": "req_2", "model": "a", "route": "", "outcome": "cancelled", "failovers": "0",
        "prompt_tokens": "0", "completion_tokens": "0", "cached_tokens": "0", "ttft_ms": "", "duration_ms": "0",
    }  # fmt: skip
    totals = client.hgetall(layout.usage(tenant, key.record.id, common["day"]))
    assert totals["failovers"] == "2"
    assert client.smembers(layout.used(tenant, common["day"])) == {key.record.id}


async def test_a_settlement_that_is_repeated_writes_no_second_record(
    start_admission, make_key, client: redis.Redis, tenant: str
) -> None:
    door = Door(await start_admission(), make_key(requests=100, tokens=1000))
    grant = await door.ask()
    copies = [Grant(grant.caller, grant.request_id, grant.tokens, grant.lease) for _ in range(5)]
    await asyncio.gather(*(door.settle(copy, used=3) for copy in (grant, *copies)))
    assert [record["id"] for record in _records(client, tenant)] == [grant.request_id]


async def test_billing_reads_from_the_first_record_on(
    start_admission, make_key, client: redis.Redis, tenant: str
) -> None:
    """Also when nobody had made the group, and for keys of a tenant that has records already."""
    admission = await start_admission()
    for key in (make_key(), make_key()):
        door = Door(admission, key)
        for _ in range(3):
            await door.settle(await door.ask(), used=1)
    stream = layout.records(tenant)
    ((_, entries),) = client.xreadgroup("billing", "c", {stream: ">"})
    assert len(entries) == 6
    assert client.xinfo_groups(stream)[0]["pending"] == 6


async def test_a_group_that_the_operator_removed_stays_removed(
    start_admission, make_key, client: redis.Redis, tenant: str
) -> None:
    admission = await start_admission()
    door = Door(admission, make_key())
    await door.settle(await door.ask())
    client.xgroup_destroy(layout.records(tenant), "billing")
    door = Door(admission, make_key())
    await door.settle(await door.ask())
    assert client.xinfo_groups(layout.records(tenant)) == []


async def test_a_caller_that_went_away_while_admitted_is_on_record(
    start_admission, make_key, client: redis.Redis, tenant: str
) -> None:
    door = Door(await start_admission(), make_key())
    asking = asyncio.create_task(door.ask(models=("m", "alias")))
    await asyncio.sleep(0)  # the command is on its way
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(20):
        while not _records(client, tenant):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    (record,) = _records(client, tenant)
    assert (record["outcome"], record["model"], record["prompt_tokens"]) == ("cancelled", "m", "0")


@pytest.mark.parametrize("admitted", ["before", "meanwhile"])
async def test_records_of_the_time_without_redis_are_written_once(
    start_admission, own_server: Valkey, admitted: str
) -> None:
    with KeyStore(own_server.url) as store:
        key = keys.create(store, tenant="acme")
    door = Door(await start_admission(own_server.url, timeout_s=2.0), key)
    await door.settle(await door.ask(), used=1)
    if admitted == "meanwhile":
        own_server.kill()
    grants = [await door.ask() for _ in range(30)]
    own_server.kill()
    for grant in grants:
        await door.settle(grant, used=2)
    assert door.admission.settlements.pending == 30
    own_server.start()
    async with asyncio.timeout(20):
        while door.admission.degraded:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await door.admission.settlements.flush(20)
    with redis.Redis.from_url(own_server.url, decode_responses=True) as client:
        records = _records(client, "acme")
    assert len(records) == 31
    assert {record["id"] for record in records[1:]} == {grant.request_id for grant in grants}
    assert {(record["part"], record["model"]) for record in records} == {("0", "m")}


async def test_what_is_on_its_way_after_redis_came_back_still_counts_as_pending(
    start_admission, own_server: Valkey
) -> None:
    """A gateway that ends at that moment waits for it, and loses no record."""
    with KeyStore(own_server.url) as store:
        key = keys.create(store, tenant="acme")
    door = Door(await start_admission(own_server.url, timeout_s=5.0), key)
    grants = [await door.ask() for _ in range(30)]
    own_server.kill()
    for grant in grants:
        await door.settle(grant, used=2)
    changed = asyncio.Event()

    def holds_it(up: bool) -> None:
        if up:
            own_server.signal(signal.SIGSTOP)
            changed.set()

    door.admission.store.on_change.append(holds_it)
    own_server.start()
    async with asyncio.timeout(20):
        await changed.wait()
    try:
        assert not await door.admission.settlements.flush(0.3)
        assert door.admission.settlements.pending == 30
    finally:
        own_server.signal(signal.SIGCONT)
    assert await door.admission.settlements.flush(20)
    with redis.Redis.from_url(own_server.url, decode_responses=True) as client:
        assert {record["id"] for record in _records(client, "acme")} == {grant.request_id for grant in grants}
