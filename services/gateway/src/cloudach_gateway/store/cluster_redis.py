"""Runs scripts on a Redis Cluster through redis-py, which follows its slots. A call costs more than with link_redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from ..redis_address import Address
from .link_redis import Argument, Reply
from .scripts import Script
from .trouble import StoreDown, from_reply

# redis-py opens a connection for each call in flight. Past this many, calls queue.
_MOST_CONNECTIONS = 64


class ClusterLink:
    def __init__(self, client: RedisCluster, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._running: set[asyncio.Future[Reply]] = set()
        self._closer: asyncio.Task[None] | None = None
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def run(self, script: Script, keys: tuple[str, ...], args: Sequence[Argument]) -> asyncio.Future[Reply]:
        call = asyncio.ensure_future(self._run(script, keys, args))
        self._running.add(call)
        call.add_done_callback(self._running.discard)
        return call

    async def _run(self, script: Script, keys: tuple[str, ...], args: Sequence[Argument]) -> Reply:
        try:
            async with asyncio.timeout(2 * self._timeout_s), self._slots:
                try:
                    return await self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
                except NoScriptError:
                    return await self._client.execute_command("EVAL", script.source, len(keys), *keys, *args)
        except ResponseError as error:
            raise from_reply(str(error)) from error
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            raise StoreDown(f"{type(error).__name__}: {error}") from error
        except AttributeError as error:
            # Where a slot is not served, redis-py closes the connections of all calls, and these find no socket.
            raise StoreDown(f"the connection was closed by another call: {error}") from error

    def close(self, why: str = "closed") -> None:
        if not self.closed.done():
            self.closed.set_result(why)
            self._closer = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        """Waits for the calls that run, because each of them would open the connections again."""
        if self._running:
            await asyncio.wait(set(self._running))
        await _close(self._client)

    async def wait_closed(self) -> None:
        if self._closer is not None:
            await asyncio.gather(self._closer, return_exceptions=True)


async def _close(client: RedisCluster) -> None:
    """redis-py's own `aclose` does nothing once a call has failed, because the nodes are to be learnt anew then."""
    await client.aclose()
    manager = client.nodes_manager
    nodes = {id(node): node for node in (*manager.nodes_cache.values(), *manager.startup_nodes.values())}
    await asyncio.gather(*(node.disconnect() for node in nodes.values()), return_exceptions=True)


async def open_cluster(address: Address, scripts: Sequence[Script], timeout_s: float) -> ClusterLink:
    """Learns the slots and loads the scripts on every master. Raises StoreDown."""
    client = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        **address.credentials(),
    )
    try:
        async with asyncio.timeout(8 * timeout_s):
            await client.initialize()
            for script in scripts:
                await client.execute_command("SCRIPT LOAD", script.source, target_nodes=RedisCluster.PRIMARIES)
        return ClusterLink(client, timeout_s)
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        await _close(client)
        raise StoreDown(f"cannot connect to the cluster {address.where}: {error or type(error).__name__}") from error
