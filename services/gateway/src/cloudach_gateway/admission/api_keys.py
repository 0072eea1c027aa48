"""API keys as clients send them: how they are made, read and hashed.

An API key is `sk-cld-<tenant>-<key id>-<secret>`. Tenant and key id stand in it openly, so a gateway knows every Redis
key of an admission before it asks Redis. One round trip and one cluster slot are then enough. The secret has 238 random
bits. Only the SHA-256 of the whole key is ever stored, which at that entropy needs no salt and no stretching.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NamedTuple

from ..errors import InvalidApiKey

TENANT = re.compile(r"[a-z0-9_]{1,32}")
KEY_ID = re.compile(r"[a-z2-7]{8,32}")
_API_KEY = re.compile(r"sk-cld-([a-z0-9_]{1,32})-([a-z2-7]{8,32})-[0-9A-Za-z]{32,128}")
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class PresentedKey(NamedTuple):
    """The API key of a request: whose it claims to be, and the digest that proves it. The secret is not kept."""

    tenant: str
    key_id: str
    digest: str


def parse_api_key(api_key: str) -> PresentedKey:
    """Reads an API key. Raises InvalidApiKey for anything that cannot be one, without asking Redis."""
    match = _API_KEY.fullmatch(api_key)
    if match is None:
        raise InvalidApiKey("Incorrect API key provided: it is malformed. A key starts with `sk-cld-`.")
    return PresentedKey(match[1], match[2], digest(api_key))


def digest(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()


def new_key_id() -> str:
    return "".join(secrets.choice(_BASE32) for _ in range(10))


def new_api_key(tenant: str, key_id: str) -> str:
    return f"sk-cld-{tenant}-{key_id}-" + "".join(secrets.choice(_BASE62) for _ in range(40))
