"""A gateway process that will be killed: streams that generate a token every 10 ms, and say so on stdout.

Arguments: url, key, number of streams, lease ttl s, and whether it notes how far they are ('notes' or 'silent').
Prints "holding", then each 10 ms the number of tokens that every stream has so far, and how many it had at each note.
"""

from __future__ import annotations

import asyncio
import os
import sys

from cloudach_gateway.admission import Admission
from cloudach_gateway.settings import Limits, Redis


async def main(url: str, key: str, count: int, lease_ttl_s: float, notes: bool) -> None:
    admission = Admission(url, Redis(), Limits(lease_ttl_s=lease_ttl_s))
    await admission.start()
    generated = 0
    noted: list[int] = []

    def progress() -> tuple[int, int, int]:
        if noted[-1:] != [generated]:
            noted.append(generated)
        return 7, generated, 3

    for number in range(count):
        grant = await admission.admit(
            key, request_id=f"{os.getpid()}.{number}", models=("m",), tokens=1000, fingerprint=f"{number}", route="r"
        )
        if notes:
            grant.progress = progress
    print("holding", flush=True)
    while True:
        await asyncio.sleep(0.01)
        generated += 1
        print(generated, *noted[-4:], flush=True)


if __name__ == "__main__":
    url, key, count, lease_ttl_s, notes = sys.argv[1:]
    asyncio.run(main(url, key, int(count), float(lease_ttl_s), notes == "notes"))
