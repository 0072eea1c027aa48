"""Model ids become path segments here."""

from __future__ import annotations

import re


def slug(model_id: str) -> str:
    """Turns `Qwen/Qwen3-8B` into `qwen-qwen3-8b`, which fits a URL path and a Serve application's name."""
    return re.sub(r"[^a-z0-9]+", "-", model_id.lower()).strip("-") or "model"
