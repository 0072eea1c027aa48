"""Words and waits that the refusals of several checks share."""

from __future__ import annotations

import math

STREAM_WAIT_S = 1.0
"""How long to wait for a stream without Redis. When one ends is not known, so it is short, as in lua/streams.lua."""


def try_again_in(seconds: float) -> str:
    text = f"{math.ceil(seconds * 1000)}ms" if seconds < 1 else f"{math.ceil(seconds)}s"
    return f"Please try again in {text}."
