"""Gateways agree on the secret of the prefix cache's salts, and keep it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
from cloudach_gateway.admission.api_keys import PresentedKey
from cloudach_gateway.admission.salts import Salts
from cloudach_gateway.errors import Overloaded
from cloudach_gateway.store.store import Store

from tests.support.valkey import Valkey
from tests.support.waiting import until_async

ACME = PresentedKey("acme", "aaaaaaaaaa", "d")
ACMES_OTHER = PresentedKey("acme", "bbbbbbbbbb", "d")
OTHER = PresentedKey("other", "aaaaaaaaaa", "d")


@asynccontextmanager
async def salts(url: str, secret: str | None = None) -> AsyncIterator[Salts]:
    store = Store(url, (), timeout_s=10.0, probe_every_s=0.05)
    found = Salts(store, secret)
    found.start()
    await store.start()
    try:
        yield found
    finally:
        await found.close()
        await store.close()


async def known(url: str) -> str:
    async with salts(url) as found, asyncio.timeout(20):
        await found.known.wait()
        salt = found.of("tenant", ACME)
        assert salt is not None
        return salt


async def test_gateways_that_start_at_once_agree(own_server: Valkey) -> None:
    found = await asyncio.gather(*(known(own_server.url) for _ in range(8)))
    assert len(set(found)) == 1
    assert await known(own_server.url) == found[0], "also one that comes later"


async def test_restarts_keep_it(own_server: Valkey) -> None:
    before = await known(own_server.url)
    own_server.kill()
    own_server.start()
    assert await known(own_server.url) == before


async def test_a_redis_that_was_lost_gets_it_back(own_server: Valkey) -> None:
    async with salts(own_server.url) as found:
        await until_async(found.known.is_set)
        before = found.of("tenant", ACME)
        own_server.kill()
        for file in own_server.folder.rglob("*.*"):
            file.unlink() if file.is_file() else None
        own_server.start()
        with redis.Redis.from_url(own_server.url) as client:
            await until_async(lambda: client.exists("cloudach:salt"))
    assert await known(own_server.url) == before


async def test_nobody_gets_none_by_being_early() -> None:
    found = Salts(Store("redis://127.0.0.1:1", ()), None)
    with pytest.raises(Overloaded):
        found.of("tenant", ACME)
    assert found.of("none", ACME) is None


async def test_who_shares() -> None:
    found = Salts(Store("redis://127.0.0.1:1", ()), "s")
    assert found.known.is_set()
    assert found.of("tenant", ACME) == found.of("tenant", ACMES_OTHER)
    every = [found.of("tenant", ACME), found.of("tenant", OTHER), found.of("key", ACME), found.of("key", ACMES_OTHER)]
    every += [found.of("key", OTHER), found.of("tenant", ACME, "x"), found.of("tenant", OTHER, "x")]
    every += [Salts(Store("redis://127.0.0.1:1", ()), "t").of("tenant", ACME)]
    assert len(set(every)) == len(every), "no two of them are one"
    assert all(salt is not None and len(salt) == 43 and "acme" not in salt for salt in every)
    assert found.of("none", ACME, "x") == "x"


def test_a_callers_own_words_are_not_kept() -> None:
    """They may be megabytes, and different each time."""
    found = Salts(Store("redis://localhost", ()), "a secret of the settings")
    wanted = "x" * 1_000_000
    before = sys.getrefcount(wanted)
    assert found.of("tenant", ACME, wanted) == found.of("tenant", ACME, wanted) != found.of("tenant", ACME)
    assert sys.getrefcount(wanted) == before
