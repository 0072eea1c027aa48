"""What a round trip to Redis costs: the gateway's own link beside redis-py, for docs/adr/0029-taken-and-made.md.

    python -m tests.bench.redis_link

It is CPU time of this process, with a script of ten keys and thirteen arguments, as admission has it. The server is the
embedded Valkey.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
import uvloop
from cloudach_gateway.redis_address import parse
from cloudach_gateway.store.embedded import EmbeddedValkey
from cloudach_gateway.store.link_redis import open_link
from cloudach_gateway.store.scripts import of_text

_SCRIPT = of_text("bench", "redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000) return {1, ARGV[2]}")
_KEYS = tuple(f"cloudach:{{bench}}:{number}" for number in range(10))
_ARGUMENTS = ["a" * 24] * 13
_CALLS = 3000
_ROUNDS = 7

Call = Callable[[], Awaitable[Any]]


async def microseconds(call: Call, at_once: int) -> float:
    """CPU time of one call, of many that are made `at_once` at a time."""

    async def some(count: int) -> None:
        for _ in range(count):
            await call()

    await asyncio.gather(*[some(20) for _ in range(at_once)])  # connections are made, and scripts known
    began = time.process_time()
    each = _CALLS // at_once
    await asyncio.gather(*[some(each) for _ in range(at_once)])
    return (time.process_time() - began) / (each * at_once) * 1e6


async def compare(url: str) -> None:
    link = await open_link(parse(url), None, [_SCRIPT], 2.0)
    client = redis.asyncio.Redis.from_url(url, max_connections=64)
    await client.script_load(_SCRIPT.source)

    async def ours() -> Any:
        return await link.run(_SCRIPT, _KEYS, _ARGUMENTS)

    async def theirs() -> Any:
        return await client.evalsha(_SCRIPT.sha.decode(), len(_KEYS), *_KEYS, *_ARGUMENTS)

    assert await ours() == await theirs()
    print(f"µs of CPU a round trip, median (least to most) of {_ROUNDS} rounds; redis-py {redis.__version__}")
    for at_once in (1, 32):
        taken: dict[str, list[float]] = {"link": [], "redis-py": []}
        for _ in range(_ROUNDS):
            taken["link"].append(await microseconds(ours, at_once))
            taken["redis-py"].append(await microseconds(theirs, at_once))
        told = [f"{who} {statistics.median(one):.1f} ({min(one):.1f} to {max(one):.1f})" for who, one in taken.items()]
        print(f"{at_once:>2} at a time: " + ", ".join(told))
    link.close()
    await client.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder)) as valkey:
        uvloop.run(compare(valkey.url))
