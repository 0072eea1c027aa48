"""redis-py's blocking client for any kind of Redis. The command line and the start-up use it, never the event loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from .. import redis_address
from ..redis_address import Address
from . import layout
from .trouble import StoreDown

TIMEOUT_S = 5.0


class BlockingStore:
    """A connection, used as `with BlockingStore(url) as store`.

    It raises ValueError for a URL that cannot be used, and StoreDown for all else.
    """

    def __init__(self, url: str) -> None:
        self._address = redis_address.parse(url)
        with translated(self._address):
            self._client = connect(self._address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def now_ms(self) -> int:
        """Returns the time of Redis' clock, by which keys expire and days are counted."""
        with translated(self._address):
            seconds, microseconds = self._client.eval("return redis.call('TIME')", 0)
        return int(seconds) * 1000 + int(microseconds) // 1000

    def tenants(self) -> list[str]:
        with translated(self._address):
            return sorted(self._client.smembers(layout.TENANTS))


def connect(address: Address) -> Any:
    """Connects; replies are strings, not bytes. A command that waits (BLOCK) must wait for less than TIMEOUT_S."""
    # redis-py retries for ten seconds by default. An operator who types a command wants to know sooner.
    options: dict[str, Any] = {
        **address.credentials(),
        "decode_responses": True,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 1),
    }
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.nodes]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **options)
    if address.kind == "sentinel":
        sentinel_options = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
        sentinel = Sentinel(list(address.nodes), sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
        return sentinel.master_for(address.service, db=address.db, **options)  # type: ignore[no-untyped-call]
    if address.path is not None:
        return redis.Redis(unix_socket_path=address.path, db=address.db, **options)
    host, port = address.nodes[0]
    return redis.Redis(host=host, port=port, db=address.db, **options)


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Raises StoreDown in the place of whatever redis-py raises."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        raise StoreDown(f"Redis at {address.where}: {error}") from error
