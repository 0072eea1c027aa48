"""Guided requests: a tenant may have a few at a time, over all its keys and gateways."""

from __future__ import annotations

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admission.checks.guided import GUIDED
from cloudach_gateway.admission.grants import Grant
from cloudach_gateway.admission.key_records import KeyLimits
from cloudach_gateway.errors import RateLimited

from .conftest import Door, OpenDoor


async def refused(door: Door) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await door.ask(guided=True)
    return caught.value


@pytest.mark.parametrize("limits", [{}, {"requests": 100, "tokens": 1000, "concurrency": 50}])
async def test_exactly_so_many(open_door: OpenDoor, limits: dict[str, int]) -> None:
    door = await open_door(most_guided=3, **limits)
    running = [await door.ask(guided=True) for _ in range(3)]
    error = await refused(door)
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
    assert error.retry_after_s == 1.0
    assert "guided" in error.message
    assert "3 at a time" in error.message
    for _ in range(5):
        await door.ask()  # others are not held up
    await door.settle(running.pop())
    running.append(await door.ask(guided=True))
    await refused(door)


async def test_no_limit_at_all(open_door: OpenDoor) -> None:
    door = await open_door(most_guided=None)
    for _ in range(50):
        await door.ask(guided=True)


async def test_a_keys_own_number(start_admission, key_store: KeyStore, make_key) -> None:
    door = Door(await start_admission(guided_requests=1), make_key())
    keys.limit(key_store, door.key.record.id, guided=2)
    await door.ask(guided=True)
    await door.ask(guided=True)
    assert "2 at a time" in (await refused(door)).message
    keys.limit(key_store, door.key.record.id, guided=None)
    assert "1 at a time" in (await refused(door)).message


async def test_all_keys_of_a_tenant_count_together(start_admission, key_store: KeyStore, make_key) -> None:
    """And all gateways; other tenants do not."""
    one = Door(await start_admission(guided_requests=2), make_key())
    two = Door(await start_admission(guided_requests=2), make_key())
    grants: list[Grant] = [await one.ask(guided=True), await two.ask(guided=True)]
    await refused(one)
    await refused(two)
    stranger = keys.create(key_store, tenant=f"{one.key.record.tenant}_x", limits=KeyLimits())
    await Door(one.admission, stranger).ask(guided=True)
    await one.settle(grants[0])
    await two.ask(guided=True)
    await refused(one)


async def test_a_killed_gateways_are_given_back(start_admission, make_key, client: redis.Redis) -> None:
    """Its leases run out, and those of a gateway that lives are renewed."""
    ttl_s = 20.0
    door = Door(await start_admission(guided_requests=2, lease_ttl_s=ttl_s), make_key(), 1_800_000_000.0)
    door.passes(0)
    dead, alive = await door.ask(guided=True), await door.ask(guided=True)
    door.admission._leases.remove(dead)
    await refused(door)
    door.passes(ttl_s - 1)
    await door.admission._leases.renew()
    door.passes(2)
    again = await door.ask(guided=True)
    await refused(door)
    for grant in (alive, again):
        await door.settle(grant)
    left = client.zrange(GUIDED.keys["guided"].format(tenant=door.key.record.tenant), 0, -1)
    assert left == [dead.lease]
    door.passes(3 * 86400)
    await door.ask(guided=True)
    assert dead.lease not in client.zrange(GUIDED.keys["guided"].format(tenant=door.key.record.tenant), 0, -1)
