"""Admission takes an Ask, hands out a Grant, and gets a Settlement when the request has ended.

Values that never change are named tuples. They are made for every request, in a quarter of a frozen dataclass' time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import LimitState
from .key_records import Caller

IN_DOUBT = "?"
"""The lease of a request that Redis may have admitted, because its answer did not come."""

OUTCOMES = ("finished", "cancelled", "failed")

WITHDRAWN = "withdrawn"
"""Stands in the place of an outcome: the request was refused here while in doubt. If Redis has admitted it, its lease
is given back. Nothing is billed."""


class Ask(NamedTuple):
    """One request for admission. admit.lua knows every field by its name here (`ARG.tokens`).

    `models` are the names of the model that is asked for: its id and its aliases. `tokens` are to be reserved. The
    `fingerprint` stands for the request's body and size, so that a retry is known again; it has no ':'. `model` and
    `route` go into the usage record. `guided`: a schema, a grammar or a tool guides the answer.
    """

    request_id: str
    models: tuple[str, ...]
    tokens: int
    fingerprint: str
    retry: bool = False
    model: str = ""
    route: str = ""
    guided: bool = False


NOTHING_ASKED = Ask("", (), 0, "")
"""Stands for the request where a key is only looked at."""


@dataclass(slots=True)
class Grant:
    """One admitted request. `tokens` are reserved until it is settled.

    `lease` is Redis' name of the running request. It is '' or IN_DOUBT when the request was admitted without Redis
    (`degraded`). `progress` returns the prompt, completion and cached tokens until now. The code that runs the request
    sets it. What it returned last is billed if this process is killed. `redis_s` is how long Redis took to answer.
    """

    caller: Caller
    request_id: str
    tokens: int
    lease: str = ""
    degraded: bool = False
    settled: bool = False
    model: str = ""
    route: str = ""
    guided: bool = False
    redis_s: float | None = None
    progress: Callable[[], tuple[int, int, int]] | None = None

    @property
    def tenant(self) -> str:
        return self.caller.tenant

    @property
    def key_id(self) -> str:
        return self.caller.key_id

    @property
    def limits(self) -> LimitState:
        return self.caller.limits


class Settlement(NamedTuple):
    """A settlement says what a request used. settle.lua knows every field by its name here (`ARG.prompt_tokens`).

    `day` is yyyymmdd, UTC. No field changes when the settlement is sent again. `window_tokens` is what counts in the
    tokens a minute, if that is not what is billed.
    """

    tenant: str
    key_id: str
    request_id: str
    lease: str
    day: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    outcome: str
    model: str = ""
    route: str = ""
    ttft_ms: int | None = None
    duration_ms: int = 0
    failovers: int = 0
    window_tokens: int | None = None
