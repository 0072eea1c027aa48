"""Weights and adapters that were fetched or made are kept in this folder between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root(configured: Path | None) -> Path:
    if configured is not None:
        return configured.expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "cloudach"
