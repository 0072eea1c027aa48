"""The keys that a Model's engines ask for: where they lie, and how they are told apart without being shown.

One Secret in each namespace with Models holds an entry for each of them, so that rights on it can be tied to its name.
A Model's pods mount their own entries alone.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

ENGINE_KEYS_SECRET: Final = "cloudach-engine-keys"

ENGINE_KEY_VARIABLE: Final = "VLLM_API_KEY"
"""The variable of a worker pod that holds the key as it was when the pod began."""

ENGINE_KEY_FOLDER: Final = "/var/run/cloudach/engine-key"
"""The folder of a worker pod with the files `key` and `also`, which follow the Secret."""


def key_entry(model: str) -> str:
    """The entry with the key that gateways send."""
    return model


def also_entry(model: str) -> str:
    """The entry with a key that engines take as well, for a rotation."""
    return f"{model}.also"


def key_id(key: str) -> str:
    """Tells two keys apart, and cannot be turned back: 48 bits of a sum over 256 random ones."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def key_of(secret: Mapping[str, Any], model: str) -> str | None:
    """The key that gateways send, from the Secret as the API server hands it out; None without a usable one."""
    value = (secret.get("data") or {}).get(key_entry(model))
    if not isinstance(value, str):
        return None
    try:
        key = b64decode(value, validate=True).decode("ascii").strip()
    except ValueError:  # no base64, or no ASCII
        return None
    # A control character would end the header that it is sent in, and begin another one.
    return key if key and key.isprintable() else None
