"""What an admission hands out, and what comes back when the request has ended.

Tuples where a value never changes: they are made for every request, in a quarter of a frozen dataclass' time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import LimitState
from .key_records import Caller

IN_DOUBT = "?"
"""The lease of a request that Redis may have admitted; its answer did not come."""

OUTCOMES = ("finished", "cancelled", "failed")

WITHDRAWN = "withdrawn"
"""Instead of an outcome: refused here while in doubt. If Redis has admitted it, its lease goes; nothing is billed."""


class Ask(NamedTuple):
    """One request for admission. `models`: the names of the model asked for, its id and its aliases.

    tokens: to reserve. print: names this request's body and size, so that its retry is known again (no ':' in it).
    model, route: as the usage record names them. guided: whether it is a guided request.
    """

    request_id: str
    models: tuple[str, ...]
    tokens: int
    print: str
    retry: bool = False
    model: str = ""
    route: str = ""
    guided: bool = False


@dataclass(slots=True)
class Grant:
    """One admitted request. `tokens` are reserved until it is settled.

    lease: Redis' name of the running request; '' or IN_DOUBT when it was admitted without Redis (`degraded`).
    progress: the prompt, completion and cached tokens until now; set by who runs the request. What it said last is
    billed if this process is killed.
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
    """What a request used. `day` is yyyymmdd, UTC. `day` and all else stay the same when it is sent again.

    window_tokens: what counts in the tokens a minute, if it is not what is billed.
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
