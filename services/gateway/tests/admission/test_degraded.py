"""Redis goes away and comes back: nobody hangs, known keys go on under a local limit, what was used is not lost."""

from __future__ import annotations

import asyncio
import logging
import signal
import time

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admission.api_keys import new_api_key, new_key_id, parse_api_key
from cloudach_gateway.admission.key_records import KeyLimits
from cloudach_gateway.errors import InvalidApiKey, Overloaded, RateLimited
from cloudach_gateway.store import layout

from tests.support.valkey import Valkey
from tests.support.waiting import until_async

from .conftest import Door

TIMEOUT_S = 2.0  # a disk that is slow to sync is no outage
LONGEST_S = 10.0


async def _door(start_admission, server: Valkey, **limits: float) -> Door:
    with KeyStore(server.url) as store:
        key = keys.create(store, tenant="acme", limits=KeyLimits(requests=20))
    return Door(await start_admission(server.url, timeout_s=TIMEOUT_S, window_s=60.0, **limits), key)


def _requests_counted(server: Valkey, door: Door) -> int:
    with KeyStore(server.url) as store:
        return keys.used_today(store, door.key.record)["requests"]


async def test_killed_and_started_again(start_admission, own_server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cloudach.gateway")
    door = await _door(start_admission, own_server)
    told: list[bool] = []
    door.admission.store.on_change.append(told.append)
    before = [await door.ask() for _ in range(4)]
    assert not door.admission.degraded

    own_server.kill()
    grants, refused = [], 0
    for _ in range(40):
        began = time.monotonic()
        try:
            grants.append(await door.ask())
        except RateLimited:
            refused += 1
        assert time.monotonic() - began < LONGEST_S
    # What Redis counted before is known: 4 of 20.
    assert (len(grants), refused) == (16, 24)
    assert door.admission.degraded
    assert all(grant.degraded for grant in grants)
    with pytest.raises(Overloaded) as unknown:
        await door.admission.authenticate(new_api_key("acme", new_key_id()))
    assert dict(unknown.value.retry_headers())[b"retry-after"] == b"1"
    with pytest.raises(InvalidApiKey):
        await door.admission.authenticate("nonsense")
    for grant in (*before, *grants):
        await asyncio.wait_for(door.settle(grant, used=3), LONGEST_S)
    assert door.admission.settlements.pending == 20

    own_server.start()
    await until_async(lambda: not door.admission.degraded)
    await until_async(lambda: door.admission.settlements.pending == 0)
    after = await door.ask()
    assert not after.degraded
    assert _requests_counted(own_server, door) == 20
    assert told == [False, True]
    changes = [record.getMessage() for record in caplog.records if record.name == "cloudach.gateway.store"]
    assert len(changes) == 3, changes  # connected, lost, connected: not a line for each request


async def test_hanging(start_admission, own_server: Valkey) -> None:
    door = await _door(start_admission, own_server)
    await door.ask()
    own_server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        grants = await asyncio.gather(*(door.ask() for _ in range(10)))
        assert time.monotonic() - began < LONGEST_S
        assert all(grant.degraded for grant in grants)
        began = time.monotonic()
        await door.ask()  # it is known by now
        assert time.monotonic() - began < TIMEOUT_S
    finally:
        own_server.signal(signal.SIGCONT)
    await until_async(lambda: not door.admission.degraded)
    assert not (await door.ask()).degraded
    for grant in grants:
        await door.settle(grant, used=1)
    assert await door.admission.settlements.flush(20)
    assert _requests_counted(own_server, door) == 10


async def test_what_is_refused_while_redis_hangs_leaves_nothing_there(start_admission, own_server: Valkey) -> None:
    """Redis had read the requests, and admits them when it goes on."""
    door = await _door(start_admission, own_server)
    record = door.key.record
    own_server.signal(signal.SIGSTOP)
    try:
        told = await asyncio.gather(*(door.ask(tokens=50) for _ in range(5)), return_exceptions=True)
    finally:
        own_server.signal(signal.SIGCONT)
    assert [type(one) for one in told] == [Overloaded] * 5, "this process does not know the key yet"
    await until_async(lambda: not door.admission.degraded)
    assert await door.admission.settlements.flush(20)
    with redis.Redis.from_url(own_server.url, decode_responses=True) as client:
        assert client.hget(layout.limiter_keys(record.tenant, record.id)[5], "dur") is None
        assert [name for kind in ("leases", "running", "lost") for name in client.scan_iter(f"*:{kind}:*")] == []
        assert client.xlen(layout.records(record.tenant)) == 0
    grant = await door.ask()
    assert grant.limits.requests is not None
    assert grant.limits.requests.remaining == 20 - 6, "Redis had admitted them"
    assert _requests_counted(own_server, door) == 0


async def test_settlements_cut_in_mid_flight_count_once(start_admission, own_server: Valkey) -> None:
    with KeyStore(own_server.url) as store:
        key = keys.create(store, tenant="acme")
    door = Door(await start_admission(own_server.url, timeout_s=TIMEOUT_S), key)
    grants = [await door.ask() for _ in range(400)]
    for number, grant in enumerate(grants):
        door.admission.settle_soon(grant, prompt_tokens=1, completion_tokens=1, outcome="finished")
        if number % 20 == 0:
            await asyncio.sleep(0)
        if number == 200:
            own_server.kill()
    await until_async(lambda: door.admission.degraded)
    own_server.start()
    await until_async(lambda: not door.admission.degraded)
    assert await door.admission.settlements.flush(20)
    assert _requests_counted(own_server, door) == 400


async def test_redis_is_trusted_for_a_while_only(
    start_admission, own_server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = await _door(start_admission, own_server, degraded_memory_s=60.0)
    await door.ask()
    own_server.kill()
    assert (await door.ask()).degraded
    monkeypatch.setattr(door.admission._local, "_clock", lambda: time.monotonic() + 60.0)
    with pytest.raises(Overloaded):
        await door.ask()


async def test_a_gateway_may_start_before_its_redis(start_admission, own_server: Valkey) -> None:
    own_server.kill()
    began = time.monotonic()
    admission = await start_admission(own_server.url, timeout_s=TIMEOUT_S)
    assert time.monotonic() - began < LONGEST_S
    assert admission.degraded
    own_server.start()
    await until_async(lambda: not admission.degraded)


async def test_a_read_only_redis_is_of_no_use(start_admission, own_server: Valkey) -> None:
    """As the old master after a failover: it answers, but takes no writes."""
    door = await _door(start_admission, own_server)
    await door.ask()
    with KeyStore(own_server.url) as store:
        store._client.replicaof("127.0.0.1", 1)
        assert (await door.ask()).degraded
        await asyncio.sleep(0.5)
        assert door.admission.degraded
        store._client.replicaof("NO", "ONE")
    await until_async(lambda: not door.admission.degraded)


async def test_more_settlements_than_can_be_kept(start_admission, own_server: Valkey) -> None:
    door = await _door(start_admission, own_server)
    grants = [await door.ask() for _ in range(10)]
    door.admission.settlements._most = 6
    own_server.kill()
    await until_async(lambda: door.admission.degraded)
    for grant in grants:
        await door.settle(grant)
    assert (door.admission.settlements.pending, door.admission.settlements.dropped) == (6, 4)
    own_server.start()
    assert await door.admission.settlements.flush(20)
    assert _requests_counted(own_server, door) == 6


async def test_a_key_is_known_once_redis_has_accepted_it(start_admission, key_store: KeyStore, make_key) -> None:
    admission = await start_admission()
    key = make_key()
    shown = parse_api_key(key.api_key)
    assert not admission.knows(shown)
    await admission.authenticate(key.api_key)
    assert admission.knows(shown)
    assert not admission.knows(parse_api_key(new_api_key(shown.tenant, shown.key_id))), "the secret belongs to it"
    keys.delete(key_store, key.api_key)
    with pytest.raises(InvalidApiKey):
        await admission.authenticate(key.api_key)
    assert not admission.knows(shown)


async def test_a_key_that_was_not_seen_for_long_is_not_known(start_admission, make_key) -> None:
    admission = await start_admission(degraded_memory_s=0.05)
    key = make_key()
    await admission.authenticate(key.api_key)
    await until_async(lambda: not admission.knows(parse_api_key(key.api_key)))
