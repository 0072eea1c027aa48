"""The limiter's settings, as every part of admission sees them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the limiter. `most_guided` is how many guided requests a tenant may run; None: any number.

    Lua knows each of them by its name here (`ARG.most_guided`); seconds become microseconds (`ARG.window_us`).
    """

    window_s: float = 60.0
    grace_s: float = 5.0
    lease_ttl_s: float = 20.0
    most_guided: int | None = None
