"""Keeps the last known Models on disk, because a gateway may start while the API server is away.

The keys of their engines lie there too, so only its own user may read the file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloudach_kube.client import Object
from cloudach_service import private_files

from ..served import Resource

_log = logging.getLogger("cloudach.gateway")

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Known:
    models: list[Object]
    keys: Mapping[Resource, str | None] = field(default_factory=dict, repr=False)


def load(path: Path) -> Known | None:
    """Reads the file. Returns None without a usable one, and logs why."""
    try:
        held = json.loads(path.read_bytes())
        if held["format"] != _FORMAT or not all(isinstance(obj, dict) for obj in held["models"]):
            raise ValueError(f"its format is not {_FORMAT}")
        keys = {Resource(*place.split("/")): str(key) for place, key in held.get("engine_keys", {}).items()}
        known = Known(held["models"], keys)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("the file of known models cannot be used", extra={"path": str(path), "cause": str(error)})
        return None
    return known


def save(path: Path, known: Known) -> None:
    """Writes the file whole or not at all, because several processes of a gateway write it. Raises OSError."""
    keys = {str(own): key for own, key in known.keys.items() if key is not None}
    data = json.dumps({"format": _FORMAT, "models": known.models, "engine_keys": keys}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    private_files.write(path, data)
