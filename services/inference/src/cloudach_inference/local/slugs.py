"""Model ids as path segments."""

from __future__ import annotations

import re


def slug(model_id: str) -> str:
    """`Qwen/Qwen3-8B` -> `qwen-qwen3-8b`: fit for a URL path and for a Serve application's name."""
    return re.sub(r"[^a-z0-9]+", "-", model_id.lower()).strip("-") or "model"
