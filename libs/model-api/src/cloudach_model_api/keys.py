"""The keys of Models' engines are found and told apart by these functions, without being shown.

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
    """Returns the entry with the key that gateways send."""
    return model


def also_entry(model: str) -> str:
    """Returns the entry with a second key that engines take during a rotation."""
    return f"{model}.also"


def key_id(key: str) -> str:
    """Tells two keys apart and cannot be turned back: it is 48 bits of a hash over 256 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def key_of(secret: Mapping[str, Any], model: str) -> str | None:
    """Returns the key that gateways send, from the Secret as the API server hands it out; None if it has no
    usable one.
    """
    value = (secret.get("data") or {}).get(key_entry(model))
    if not isinstance(value, str):
        return None
    try:
        key = b64decode(value, validate=True).decode("ascii").strip()
    except ValueError:  # no base64, or no ASCII
        return None
    # A control character would end the header that it is sent in, and begin another one.
    return key if key and key.isprintable() else None
