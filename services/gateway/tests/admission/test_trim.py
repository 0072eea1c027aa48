"""How long usage records stay: until they are old and every consumer group has acknowledged them."""

from __future__ import annotations

import pytest
import redis
from cloudach_gateway.admission import Admission
from cloudach_gateway.store import layout

DAY_MS = 86_400_000


@pytest.fixture
async def admission(start_admission) -> Admission:
    started: Admission = await start_admission(lease_ttl_s=3600.0)  # its own sweep does not come round meanwhile
    return started


def _fill(client: redis.Redis, tenant: str) -> list[str]:
    """1,000 records of the last ten days; whole blocks of 100 are dropped."""
    now_ms = client.time()[0] * 1000
    stream = layout.records(tenant)
    pipe = client.pipeline(transaction=False)
    for number in range(1000):
        pipe.xadd(stream, {"id": f"r{number}"}, id=f"{now_ms - 10 * DAY_MS + number * DAY_MS // 100}-0")
    pipe.xgroup_create(stream, "billing", id="0")
    found: list[str] = pipe.execute()[:-1]
    return found


async def test_nothing_unread_is_dropped(admission: Admission, client: redis.Redis, tenant: str) -> None:
    stream = layout.records(tenant)
    ids = _fill(client, tenant)
    assert await admission.sweep.trim(tenant) == 0
    client.xreadgroup("billing", "c", {stream: ">"})
    assert await admission.sweep.trim(tenant) == 0, "delivered is not acknowledged"
    client.xack(stream, "billing", *ids[:150], *ids[160:])
    assert await admission.sweep.trim(tenant) == 100
    client.xack(stream, "billing", *ids)
    assert await admission.sweep.trim(tenant) == 200
    assert client.xrange(stream, count=1)[0][0] == ids[300], "the last seven days stay"


async def test_every_group_must_have_read(admission: Admission, client: redis.Redis, tenant: str) -> None:
    stream = layout.records(tenant)
    ids = _fill(client, tenant)
    client.xgroup_create(stream, "audit", id="0")
    client.xreadgroup("billing", "c", {stream: ">"})
    client.xack(stream, "billing", *ids)
    assert await admission.sweep.trim(tenant) == 0
    client.xreadgroup("audit", "c", {stream: ">"}, count=250)
    client.xack(stream, "audit", *ids)
    assert await admission.sweep.trim(tenant) == 200
    client.xgroup_destroy(stream, "audit")
    assert await admission.sweep.trim(tenant) == 100


async def test_without_any_group_the_age_decides(admission: Admission, client: redis.Redis, tenant: str) -> None:
    _fill(client, tenant)
    client.xgroup_destroy(layout.records(tenant), "billing")
    assert await admission.sweep.trim(tenant) == 300


async def test_marks_of_lost_requests_end(admission: Admission, client: redis.Redis, tenant: str) -> None:
    now_us = client.time()[0] * 1_000_000
    lost = layout.lost(tenant)
    client.hset(lost, mapping={"old": f"{now_us - 49 * 3600 * 10**6} 1 1 1 0", "young": f"{now_us} 1 1 1 0"})
    assert await admission.sweep.trim(tenant) == 0
    assert client.hkeys(lost) == ["young"]


async def test_a_sweep_trims(admission: Admission, client: redis.Redis, tenant: str, make_key) -> None:
    make_key()
    _fill(client, tenant)
    client.xgroup_destroy(layout.records(tenant), "billing")
    while not await admission.sweep.run():
        pass
    assert client.xlen(layout.records(tenant)) == 700
