"""A real Valkey in cluster mode: a script whose keys lie in two slots is refused there."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admin.usage_store import UsageStore
from cloudach_gateway.admission.api_keys import PresentedKey
from cloudach_gateway.admission.key_records import KeyLimits
from cloudach_gateway.admission.salts import Salts
from cloudach_gateway.admission.script_calls import trimming
from cloudach_gateway.admission.scripts import TRIM
from cloudach_gateway.errors import RateLimited
from cloudach_gateway.store import layout
from cloudach_gateway.store.scripts import of_text
from cloudach_gateway.store.store import Store, StoreDown, StoreError

from tests.support.ports import free_port
from tests.support.valkey import Valkey
from tests.support.waiting import until_async


@pytest.fixture
def cluster_url(tmp_path: Path) -> Iterator[str]:
    server = Valkey(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis.Redis(port=server.port, decode_responses=True) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while "cluster_state:ok" not in str(client.execute_command("CLUSTER", "INFO")).replace("': '", ":"):
            time.sleep(0.05)
        with pytest.raises(redis.RedisError, match="same slot"):
            client.eval("return 1", 2, "{a}", "{b}")
    yield f"redis+cluster://127.0.0.1:{server.port}"
    server.kill()


async def test_everything_works_on_a_cluster(cluster_url: str, start_admission) -> None:
    with KeyStore(cluster_url) as store:
        key = keys.create(store, tenant="acme", limits=KeyLimits(requests=3, tokens=1000, concurrency=3))
        other = keys.create(store, tenant="other")
        admission = await start_admission(cluster_url)
        grants = [
            await admission.admit(key.api_key, request_id=f"r{n}", models=("m",), tokens=10, fingerprint=f"{n}")
            for n in range(3)
        ]
        await admission.admit(other.api_key, request_id="x", models=("m",), tokens=10, fingerprint="x")
        for grant in grants:
            await admission.settle(grant, prompt_tokens=1, completion_tokens=2, outcome="finished")
        with pytest.raises(RateLimited):
            await admission.admit(key.api_key, request_id="r4", models=("m",), tokens=10, fingerprint="4")
        await admission._leases.renew()
        await admission.sweep.run()
        await admission.sweep.trim("acme")
        assert keys.used_today(store, key.record)["requests"] == 3
        assert store._client.xlen(layout.records("acme")) == 3
        assert [record.tenant for record in keys.listing(store)] == ["acme", "other"]
        day = time.strftime("%Y%m%d", time.gmtime())
        with UsageStore(cluster_url) as usage:
            assert [(key_id, totals["requests"]) for _, key_id, totals in usage.totals("acme", [day])] == [
                (key.record.id, 3)
            ]
            snapshot = usage.snapshot("acme", day)
            assert snapshot.totals[key.record.id]["completion_tokens"] == 6
            written = list(usage.records("acme", last=snapshot.last))
            assert [fields["id"] for _, fields in written] == ["r0", "r1", "r2"]
            assert usage.next_records("acme", written[1][0], 10) == written[2:]
            usage.make_group("acme", "audit")
            assert sorted(usage.groups("acme")) == ["audit", "billing"]
            for group in ("audit", "billing"):
                assert usage.read_group("acme", group, "a", ">", 10, 10) == written
                usage.acknowledge("acme", group, written)
                assert usage.read_group("acme", group, "a", "0", 10, None) == []
            keys_, args = trimming("acme", 1.0)
            assert usage.run(TRIM, keys_, args) == 0
        keys.rotate(store, key.record.id, grace_ms=0)
        keys.limit(store, key.record.id, requests=5)
        keys.delete(store, key.record.id)
        assert [record.tenant for record in keys.listing(store)] == ["other"]


@pytest.fixture
def masters(tmp_path: Path) -> Iterator[list[Valkey]]:
    """Three of them, with the slots shared out."""
    servers = []
    for name in "abc":
        (tmp_path / name).mkdir()
        bus = free_port()
        options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "1000")
        servers.append(Valkey(tmp_path / name, *options, "--cluster-require-full-coverage", "no"))
        with redis.Redis(port=servers[0].port) as first, redis.Redis(port=servers[-1].port) as own:
            begin = 5461 * (len(servers) - 1)
            own.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, 16383 if name == "c" else begin + 5460)
            if len(servers) > 1:
                first.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[-1].port, bus)
    try:
        for server in servers:
            with redis.Redis(port=server.port) as client:
                while "16384" not in str(client.execute_command("CLUSTER", "INFO")).replace("': '", ":"):
                    time.sleep(0.05)
        yield servers
    finally:
        for server in servers:
            server.kill()


async def _lose(master: Valkey, url: str) -> None:
    """Asks all nodes at once, and goes on until calls have failed three times over."""
    store = Store(url, (), timeout_s=5.0, probe_every_s=0.05)
    await store.start()
    lost = 0
    read = of_text("read", "return redis.call('GET', KEYS[1])")
    while lost < 3:
        calls = [store.run(read, (f"key-{number}",), ()) for number in range(40)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(answer is None or isinstance(answer, StoreDown | StoreError) for answer in answers), answers
        if None in answers and master.alive:
            master.kill()
        lost += any(isinstance(answer, StoreDown) for answer in answers)
        await asyncio.sleep(0.02)
    await store.close()


async def test_no_connection_is_left_open_when_a_master_goes(masters: list[Valkey]) -> None:
    """What the client library forgets to close it tells the loop as an error, one line for each node."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["message"])))
    await _lose(masters[2], f"redis+cluster://127.0.0.1:{masters[0].port}")
    gc.collect()
    await asyncio.sleep(0)
    assert told == []


async def test_gateways_agree_on_the_salts_on_a_cluster(cluster_url: str) -> None:
    found = []
    for _ in range(2):
        store = Store(cluster_url, (), timeout_s=10.0)
        salts = Salts(store, None)
        salts.start()
        await store.start()
        await until_async(salts.known.is_set)
        found.append(salts.of("tenant", PresentedKey("acme", "aaaaaaaaaa", "d")))
        await salts.close()
        await store.close()
    assert found[0] is not None
    assert found[0] == found[1]
