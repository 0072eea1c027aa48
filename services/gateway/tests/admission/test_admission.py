"""What only the limiter with Redis does: other processes' changes to a key, holds, usage totals, cancelled callers."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admission import Grant
from cloudach_gateway.errors import InvalidApiKey, PermissionDenied
from cloudach_gateway.store import layout

from tests.support.waiting import until_async

from .conftest import Door


def _today() -> str:
    return time.strftime("%Y%m%d", time.gmtime())


async def _door(start_admission, make_key, **limits) -> Door:
    return Door(await start_admission(window_s=60.0, promise_grace_s=30.0), make_key(**limits))


async def test_deleted_disabled_expired_wrong(start_admission, make_key, key_store: KeyStore) -> None:
    door = await _door(start_admission, make_key)
    await door.ask()
    secret = door.key.api_key
    with pytest.raises(InvalidApiKey):
        await door.admission.authenticate(secret[:-1] + ("a" if secret[-1] != "a" else "b"))
    keys.disable(key_store, door.key.record.id)
    with pytest.raises(PermissionDenied) as refused:
        await door.ask()
    assert refused.value.code == "key_disabled"
    keys.enable(key_store, door.key.record.id)
    await door.ask()
    keys.expire(key_store, door.key.record.id, key_store.now_ms() + 60_000)
    await door.ask()
    keys.expire(key_store, door.key.record.id, key_store.now_ms() + 300)
    await asyncio.sleep(0.4)
    with pytest.raises(InvalidApiKey, match="expired"):
        await door.ask()
    keys.expire(key_store, door.key.record.id, None)
    await door.ask()
    keys.delete(key_store, door.key.record.id)
    with pytest.raises(InvalidApiKey, match="Incorrect"):
        await door.ask()


async def test_rotation_keeps_limits_and_usage(start_admission, make_key, key_store: KeyStore) -> None:
    door = await _door(start_admission, make_key, requests=3)
    await door.settle(await door.ask(), used=5)
    grace_s = 3.0
    ends = time.monotonic() + grace_s
    new = keys.rotate(key_store, door.key.record.id, grace_ms=round(grace_s * 1000))
    assert new.record.id == door.key.record.id
    await door.settle(await door.ask(), used=5)  # the old secret
    renewed = Door(door.admission, new)
    await renewed.settle(await renewed.ask(), used=5)
    await renewed.wait_for("fourth", kind="requests")
    await asyncio.sleep(max(0.0, ends + 0.5 - time.monotonic()))
    with pytest.raises(InvalidApiKey):
        await door.admission.authenticate(door.key.api_key)
    await door.admission.authenticate(new.api_key)
    assert key_store.usage(new.record.tenant, new.record.id, _today())["requests"] == 3


async def test_a_second_rotation_leaves_the_first_ones_grace(start_admission, make_key, key_store: KeyStore) -> None:
    door = await _door(start_admission, make_key)
    key_id = door.key.record.id
    long_s, short_s = 8.0, 2.0
    began = time.monotonic()
    second = keys.rotate(key_store, key_id, grace_ms=round(long_s * 1000))
    third = keys.rotate(key_store, key_id, grace_ms=round(short_s * 1000))
    for api_key in (door.key.api_key, second.api_key, third.api_key):
        await door.admission.authenticate(api_key)
    await asyncio.sleep(max(0.0, began + short_s + 1.0 - time.monotonic()))
    with pytest.raises(InvalidApiKey):
        await door.admission.authenticate(second.api_key)
    if time.monotonic() < began + long_s - 1.0:  # on a busy machine it may have ended, too
        await door.admission.authenticate(door.key.api_key)
    await asyncio.sleep(max(0.0, began + long_s + 0.5 - time.monotonic()))
    with pytest.raises(InvalidApiKey):
        await door.admission.authenticate(door.key.api_key)
    await door.admission.authenticate(third.api_key)


async def test_no_grace_ends_every_earlier_secret(start_admission, make_key, key_store: KeyStore) -> None:
    door = await _door(start_admission, make_key)
    second = keys.rotate(key_store, door.key.record.id, grace_ms=60_000)
    third = keys.rotate(key_store, door.key.record.id, grace_ms=0)
    assert len(third.ended_ms) == 1
    for api_key in (door.key.api_key, second.api_key):
        with pytest.raises(InvalidApiKey):
            await door.admission.authenticate(api_key)
    await door.admission.authenticate(third.api_key)


async def test_a_changed_limit_counts_at_once(start_admission, make_key, key_store: KeyStore) -> None:
    door = await _door(start_admission, make_key, requests=1)
    await door.ask()
    await door.wait_for("x")
    keys.limit(key_store, door.key.record.id, requests=5)
    await door.ask()
    keys.limit(key_store, door.key.record.id, requests=None, models=["other"])
    with pytest.raises(PermissionDenied):
        await door.ask()


async def test_usage_is_counted_once_for_a_request(start_admission, make_key, key_store: KeyStore) -> None:
    door = await _door(start_admission, make_key)
    first, second, third = [await door.ask() for _ in range(3)]
    copy = Grant(first.caller, first.request_id, first.tokens, first.lease)  # as another attempt would have it
    settle = door.admission.settle
    await settle(first, prompt_tokens=10, completion_tokens=20, cached_tokens=4, outcome="finished")
    await settle(copy, prompt_tokens=10, completion_tokens=20, cached_tokens=4, outcome="finished")
    await settle(second, prompt_tokens=1, completion_tokens=2, outcome="cancelled")
    await settle(third, prompt_tokens=0, completion_tokens=0, outcome="failed")
    assert key_store.usage(door.key.record.tenant, door.key.record.id, _today()) == {
        "requests": 3,
        "prompt_tokens": 11,
        "completion_tokens": 22,
        "cached_tokens": 4,
        "finished": 1,
        "cancelled": 1,
        "failed": 1,
        "lost": 0,
        "failovers": 0,
    }


async def test_a_freed_stream_is_held_for_the_one_who_waits(start_admission, make_key, client: redis.Redis) -> None:
    door = await _door(start_admission, make_key, concurrency=2)
    for _ in range(3):  # so that durations are known: streams here last about 0.05 s
        grant = await door.ask()
        await asyncio.sleep(0.05)
        await door.settle(grant)
    first, _second = await door.ask(), await door.ask()
    told = await door.wait_for("waiter")
    assert told == pytest.approx(1.0, abs=0.1)  # estimated shorter, told at least a second
    await door.settle(first)
    await door.settle(await door.ask("newcomer"))  # would be done before the waiter is due
    await asyncio.sleep(told)
    await door.wait_for("another newcomer")
    await door.ask("waiter", retry=True)


async def test_a_caller_that_goes_away_while_admitted_holds_nothing(
    start_admission, make_key, client: redis.Redis, tenant: str
) -> None:
    door = await _door(start_admission, make_key, concurrency=1)
    asking = asyncio.create_task(door.ask("gone"))
    await asyncio.sleep(0)  # the command is on its way
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    await until_async(lambda: client.xlen(layout.records(tenant)))  # it was admitted, and given back
    assert door.admission.running == 0
    await door.ask()


async def test_settling_in_a_cancelled_task(start_admission, make_key, key_store: KeyStore) -> None:
    door = await _door(start_admission, make_key)

    async def request() -> None:
        grant = await door.ask(tokens=100)
        try:
            await asyncio.sleep(60)
        finally:
            door.admission.settle_soon(grant, prompt_tokens=3, completion_tokens=4, outcome="cancelled")

    tasks = [asyncio.create_task(request()) for _ in range(20)]
    await until_async(lambda: door.admission.running == 20)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await door.admission.settlements.flush(20)
    used = key_store.usage(door.key.record.tenant, door.key.record.id, _today())
    assert (used["requests"], used["cancelled"], used["prompt_tokens"], used["completion_tokens"]) == (20, 20, 60, 80)


async def test_the_scripts_may_be_flushed(start_admission, make_key, client: redis.Redis) -> None:
    door = await _door(start_admission, make_key, requests=2)
    await door.ask()
    client.script_flush()
    await door.ask()
    await door.wait_for("third")


@pytest.mark.parametrize("limits", [{"requests": 2, "tokens": 100, "concurrency": 5}, {}])
async def test_nothing_of_a_request_stays_for_good(
    start_admission, make_key, client: redis.Redis, limits: dict
) -> None:
    """Every key that admission writes ends by itself."""
    door = await _door(start_admission, make_key, **limits)
    await door.settle(await door.ask(tokens=10), used=5)
    await door.ask()
    if limits:
        await door.wait_for("third")
    written = set(client.scan_iter(f"cloudach:{{{door.key.record.tenant}}}:*"))
    lasting = {name for name in written if client.ttl(name) == -1}
    assert lasting == {
        layout.key_ids(door.key.record.tenant),
        layout.key_record(door.key.record.tenant, door.key.record.id),
        layout.records(door.key.record.tenant),  # until billing has read them
    }
    assert len(written) >= (9 if limits else 5)
