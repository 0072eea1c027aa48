"""One of several gateway processes: a burst with one key, then each rejected one waits and tries once more.

Arguments: url, key, number of requests, window s, 'ms' or 's' (how Retry-After is read), 'same' or 'own' bodies.
Prints a line when connected, starts at a line on stdin, prints its result as JSON.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys

from cloudach_gateway.admission import Admission
from cloudach_gateway.errors import RateLimited
from cloudach_gateway.settings import Limits, Redis


async def main(url: str, key: str, count: int, window_s: float, unit: str, bodies: str) -> None:
    # The grace is for clients that a busy machine keeps from coming back in time.
    admission = Admission(url, Redis(timeout_s=10.0), Limits(window_s=window_s, promise_grace_s=20.0))
    await admission.start()
    print("connected", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    async def ask(number: int, attempt: int) -> float | None:
        """Seconds to wait, None when admitted."""
        try:
            await admission.admit(
                key,
                request_id=f"{os.getpid()}.{number}.{attempt}",
                models=("m",),
                tokens=1,
                fingerprint="body" if bodies == "same" else f"body {os.getpid()} {number}",
                retry=attempt > 0,
            )
        except RateLimited as error:
            milliseconds = int(dict(error.retry_headers())[b"retry-after-ms"])
            seconds = int(dict(error.retry_headers())[b"retry-after"])
            assert seconds == math.ceil(milliseconds / 1000)
            return milliseconds / 1000 if unit == "ms" else float(seconds)
        return None

    async def client(number: int) -> tuple[bool, bool, float]:
        wait = await ask(number, 0)
        if wait is None:
            return True, True, 0.0
        await asyncio.sleep(wait)
        return False, await ask(number, 1) is None, wait

    results = await asyncio.gather(*map(client, range(count)))
    await admission.close()
    print(
        json.dumps(
            {
                "admitted": sum(first for first, _, _ in results),
                "rejected": sum(not first for first, _, _ in results),
                "admitted_at_the_retry": sum(not first and second for first, second, _ in results),
                "waits": [wait for first, _, wait in results if not first],
            }
        )
    )


if __name__ == "__main__":
    url, key, count, window_s, unit, bodies = sys.argv[1:]
    asyncio.run(main(url, key, int(count), float(window_s), unit, bodies))
