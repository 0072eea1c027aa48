"""The last known Models on disk, for a gateway that starts while the API server is away."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .api import Object

_log = logging.getLogger("cloudach.gateway")

_FORMAT = 1


def load(path: Path) -> list[Object] | None:
    """None without a usable file; why is in the log."""
    try:
        held = json.loads(path.read_bytes())
        if held["format"] != _FORMAT or not all(isinstance(obj, dict) for obj in held["models"]):
            raise ValueError(f"its format is not {_FORMAT}")
        models: list[Object] = held["models"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("the file of known models cannot be used", extra={"path": str(path), "cause": str(error)})
        return None
    return models


def save(path: Path, objects: Iterable[Object]) -> None:
    """Whole or not at all: several processes of a gateway write the same file. Raises OSError."""
    data = json.dumps({"format": _FORMAT, "models": list(objects)}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
