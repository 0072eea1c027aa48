"""Decides who shares an engine's prefix cache, by a salt for each tenant or key which nobody can guess.

An engine answers a prompt that is in its cache sooner. So the sender learns that somebody has sent that prompt before.
Requests with different values of `cache_salt` find nothing of one another.

The salt is an HMAC of the tenant, or of the key, with a secret that all gateways of an installation share. The secret
stands in the settings, or the first gateway puts a random one into Redis. A gateway that has the secret keeps it while
Redis is away, and puts it back where Redis has lost it. Should two gateways ever differ, prompts are found in the cache
less often, and nothing else happens.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import secrets
from functools import lru_cache
from typing import Literal

from ..errors import Overloaded
from ..store import layout
from ..store.scripts import Script, of_text
from ..store.store import Store, StoreDown, StoreError
from .api_keys import PresentedKey

log = logging.getLogger("cloudach.gateway.auth")

Scope = Literal["tenant", "key", "none"]

_AGREE: Script = of_text(
    "agree",
    """
    if redis.call('SET', KEYS[1], ARGV[1], 'NX') then return ARGV[1] end
    return redis.call('GET', KEYS[1])
    """,
)
_RETRY_S = 1.0


class Salts:
    """Makes the salts. Each process has one such object. `known` is set once the secret is there.

    `secret` comes from the settings. If it is None, the gateways share a secret in Redis.
    """

    def __init__(self, store: Store, secret: str | None) -> None:
        self._store = store
        self._secret = secret.encode("latin-1") if secret is not None else None
        self._own = secret is not None
        self._asking: asyncio.Task[None] | None = None
        self.known = asyncio.Event()
        if self._own:
            self.known.set()

    def start(self) -> None:
        """Must be called before the store starts, so that this object is told when Redis is reached."""
        if not self._own:
            self._store.on_change.append(self._redis_changed)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def of(self, scope: Scope, key: PresentedKey, wanted: str | None = None) -> str | None:
        """Returns the value of `cache_salt` for this key's requests. Requests that get None share one cache.

        `wanted` is the salt that the client asks for. It divides the cache of its tenant or key further. It never
        lets two tenants or keys share a cache, except in the scope `none`, where the client alone decides.
        Raises Overloaded while the secret is not known.
        """
        if scope == "none":
            return wanted
        if self._secret is None:
            raise Overloaded("The server is starting; send the request again.", retry_after_s=1.0, cause="no salt yet")
        owner = (self._secret, key.tenant, key.key_id if scope == "key" else "")
        return _made(*owner, wanted) if wanted else _salt(*owner)

    def _redis_changed(self, up: bool) -> None:
        if up and (self._asking is None or self._asking.done()):
            self._asking = asyncio.get_running_loop().create_task(self._agree(), name="agree on the salts' secret")

    async def _agree(self) -> None:
        while True:
            offer = self._secret or secrets.token_urlsafe(32).encode()
            try:
                agreed = await self._store.run(_AGREE, (layout.SALT,), (offer,))
            except StoreDown:
                return  # asked again when Redis is back
            except StoreError as error:
                log.error("the secret of the prefix cache's salts cannot be kept in Redis: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            assert isinstance(agreed, bytes)
            self._secret = agreed
            self.known.set()
            return


@lru_cache(maxsize=8192)
def _salt(secret: bytes, tenant: str, key_id: str) -> str:
    """Keeps the salts that most requests have. Those with a caller's own words are not kept; they may be long."""
    return _made(secret, tenant, key_id, "")


def _made(secret: bytes, tenant: str, key_id: str, wanted: str) -> str:
    said = f"{tenant}:{key_id}:{wanted}".encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(hmac.digest(secret, said, "sha256")).rstrip(b"=").decode()
