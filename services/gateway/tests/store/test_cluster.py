"""A real Valkey in cluster mode: a script whose keys lie in two slots is refused there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cloudach_gateway.auth import keys
from cloudach_gateway.auth.salts import Salts
from cloudach_gateway.errors import RateLimited
from cloudach_gateway.ratelimit.limiter_scripts import TRIM, trimming
from cloudach_gateway.store import layout
from cloudach_gateway.store.keys_redis import KeyStore
from cloudach_gateway.store.store import Store
from cloudach_gateway.store.usage_redis import UsageStore
from cloudach_gateway.tenancy import KeyLimits, PresentedKey

from ..conftest import Server, free_port, until


@pytest.fixture
def cluster_url(tmp_path: Path) -> Iterator[str]:
    server = Server(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    server.start()
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


async def test_gateways_agree_on_the_salts_on_a_cluster(cluster_url: str) -> None:
    found = []
    for _ in range(2):
        store = Store(cluster_url, (), timeout_s=10.0)
        salts = Salts(store, None)
        salts.start()
        await store.start()
        await until(salts.known.is_set)
        found.append(salts.of("tenant", PresentedKey("acme", "aaaaaaaaaa", "d")))
        await salts.close()
        await store.close()
    assert found[0] is not None
    assert found[0] == found[1]
