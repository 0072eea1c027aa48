"""The noun Check: one thing that is asked before a request is admitted, with Redis and without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import GatewayError
from .grants import Ask
from .key_records import KeyLimits, KeyRecord
from .rules import Rules
from .window import Window


class Refused(NamedTuple):
    """A check's answer: `status` is one of its `refusals`, and the same request has a chance again in `wait_s`."""

    status: str
    wait_s: float = 0.0


class Refusal(NamedTuple):
    """A refusal's words are made from these values."""

    ask: Ask
    limits: KeyLimits
    rules: Rules
    wait_s: float


class Alone(NamedTuple):
    """A check sees this while Redis is away: the key as Redis had it last, and what this process itself has counted.

    `running` counts the key's requests that this process runs, `guided` the guided ones of the key's whole tenant.
    `now` is the window's time in us.
    """

    record: KeyRecord
    ask: Ask
    rules: Rules
    running: int
    guided: int
    window: Window
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check, with its Lua, its refusals and what it does without Redis. `checks` has them in their order.

    `lua` is a piece of admit.lua that refuses with `return answer(status, wait in us)`. It sees the time (`now`), the
    key's record (`RECORD.rpm`), the request and the limiter's settings (`ARG.tokens`: every field of Ask and Rules),
    and Redis (`KEY.state`: store/layout.py, and the check's own `keys`).

    The other pieces of Lua keep what the check counts. `admitted` runs when every check has let the request pass.
    `renewed` runs when its lease is prolonged, and `ended` when its lease ends. `booked` runs when its tokens are
    known, also when it is declared lost.

    A check `of_key` asks about the API key alone. Such checks come first, and run also when a key is only looked at.
    """

    name: str
    of_key: bool = False
    lua: str
    admitted: str = ""
    renewed: str = ""
    ended: str = ""
    booked: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Redis keys that only this check uses: the name in Lua, and the pattern as in store/layout.py."""
    refusals: Mapping[str, Callable[[Refusal], GatewayError]]
    """The error for each status with which this check refuses."""
    alone: Callable[[Alone], Refused | None] | None = None
    """Answers the question while Redis is away. None where it cannot be answered then."""
