"""Asks the sentinels which server is the master now."""

from __future__ import annotations

import asyncio

from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from ..redis_address import Address
from .trouble import StoreDown


async def find_master(address: Address, timeout_s: float) -> tuple[str, int]:
    """Returns host and port. Raises StoreDown when no sentinel knows a master."""
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        list(address.nodes), socket_timeout=timeout_s, socket_connect_timeout=timeout_s, **address.tls_keywords()
    )
    try:
        async with asyncio.timeout(4 * timeout_s):
            host, port = await sentinel.discover_master(address.service)
        return str(host), int(port)
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreDown(f"no sentinel of {address.where} knows {address.service}: {error}") from error
    finally:
        for client in sentinel.sentinels:
            await client.aclose()
