"""Several gateway processes, one key: the limit holds for all of them together, and Retry-After is true."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from cloudach_gateway.admin.keys import NewKey
from cloudach_gateway.errors import RateLimited
from cloudach_gateway.store import layout

PROCESSES = 4
WINDOW_S = 4.0  # in which the burst has begun everywhere
LEASE_TTL_S = 2.0


def _burst(url: str, key: NewKey, count: int, unit: str, bodies: str) -> list[dict]:
    script = str(Path(__file__).with_name("burst_process.py"))
    arguments = [url, key.api_key, str(count // PROCESSES), str(WINDOW_S), unit, bodies]
    processes = [
        subprocess.Popen([sys.executable, script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "connected\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate(timeout=100)[0].splitlines()[-1]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def _watched_burst(client: redis.Redis, key: NewKey, *burst: str) -> tuple[list[dict], list[float]]:
    """The processes' results, and the accounted times of all admissions, collected meanwhile: old ones are dropped."""
    log = layout.limiter_keys(key.record.tenant, key.record.id)[0]
    seen: dict[str, float] = {}
    running = asyncio.create_task(asyncio.to_thread(_burst, burst[0], key, 200, *burst[1:]))
    while not running.done():
        seen.update(client.zrange(log, 0, -1, withscores=True))
        await asyncio.sleep(0.1)
    seen.update(client.zrange(log, 0, -1, withscores=True))  # the last batch, whose processes ended since the last look
    return await running, sorted(at for name, at in seen.items() if ":" not in name)  # without the promises


@pytest.mark.parametrize(("unit", "bodies"), [("ms", "own"), ("s", "same")])
async def test_200_at_once_of_50(valkey_url: str, client: redis.Redis, make_key, unit: str, bodies: str) -> None:
    key = make_key(requests=50)
    results, accounted = await _watched_burst(client, key, valkey_url, unit, bodies)
    assert sum(result["admitted"] for result in results) == 50
    assert sum(result["rejected"] for result in results) == 150
    assert sum(result["admitted_at_the_retry"] for result in results) == 150
    waits = sorted(wait for result in results for wait in result["waits"])
    rounding = 1 if unit == "s" else 0
    assert waits[49] <= WINDOW_S + rounding
    assert waits[-1] <= 3 * WINDOW_S + rounding
    assert len(accounted) == 200
    for place, at in enumerate(accounted[50:]):
        assert at - accounted[place] >= WINDOW_S * 1_000_000  # never 51 in a window


async def test_a_killed_gateways_leases_free_themselves(valkey_url: str, make_key, start_admission) -> None:
    key = make_key(concurrency=2)
    holder = """
import asyncio, sys
from cloudach_gateway.admission import Admission
from cloudach_gateway.settings import Limits, Redis
async def main():
    admission = Admission(sys.argv[1], Redis(), Limits(lease_ttl_s=float(sys.argv[3])))
    await admission.start()
    for name in "ab":
        await admission.admit(sys.argv[2], request_id=name, models=("m",), tokens=1, fingerprint=name)
    print("holding", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", holder, valkey_url, key.api_key, str(LEASE_TTL_S)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "holding\n"
        admission = await start_admission(lease_ttl_s=LEASE_TTL_S)

        async def taken() -> bool:
            try:
                await admission.admit(key.api_key, request_id="c", models=("m",), tokens=1, fingerprint="c")
            except RateLimited:
                return True
            return False

        await asyncio.sleep(2.5 * LEASE_TTL_S)  # several lease times: renewed as long as its holder lives
        assert await taken()
        os.kill(process.pid, signal.SIGKILL)
        deadline = asyncio.get_running_loop().time() + 30
        while await taken():  # the place held for 'c' by its first try keeps others away, not 'c'
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.1)
    finally:
        process.kill()
        process.communicate()
