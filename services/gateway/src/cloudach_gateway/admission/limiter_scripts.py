"""The limiter's Lua: its arguments and its replies. See lua/*.lua for what each script does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..errors import LimitState
from ..store import layout, scripts
from ..store.store import Argument, Reply
from .api_keys import PresentedKey
from .grants import IN_DOUBT, Ask, Grant, Settlement
from .key_records import FIELDS, KeyRecord
from .refusals import Status, limit_state

_FOLDER = Path(__file__).parent / "lua"
ADMIT = scripts.load(_FOLDER, "admit")
SETTLE = scripts.load(_FOLDER, "settle")
RENEW = scripts.load(_FOLDER, "renew")
SCAN = scripts.load(_FOLDER, "scan")
TRIM = scripts.load(_FOLDER, "trim")
MEMORY = scripts.load(_FOLDER, "memory")
ALL = (ADMIT, SETTLE, RENEW, SCAN, TRIM, MEMORY)


@dataclass(frozen=True, slots=True)
class Rules:
    """The limiter's settings, in seconds. guided: requests of that kind that a tenant may run; None: any number."""

    window_s: float = 60.0
    grace_s: float = 5.0
    lease_ttl_s: float = 20.0
    guided: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What admit.lua said. `refused` is None for an admitted request; `record` is None for an unknown key only."""

    refused: Status | None
    wait_s: float
    limits: LimitState
    lease: str
    record: KeyRecord | None


_NOTHING = Ask("", (), 0, "")
_MARKS_S = 2 * 86400.0  # how late the settlement of a request that was declared lost may come


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def trimming(
    tenant: str, keep_s: float, *, unread: bool = False, clock: str = ""
) -> tuple[tuple[str, ...], Sequence[Argument]]:
    """KEYS and ARGV of TRIM. unread: whether anybody has read them or not."""
    keys = (layout.records(tenant), layout.lost(tenant), layout.trimmed(tenant))
    return keys, (clock, _us(keep_s), _us(_MARKS_S), "1" if unread else "")


class Encoder:
    """Arguments of the scripts. `clock` is for tests: a time in us, instead of Redis' own."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.clock = ""
        self._times = (_us(rules.window_s), _us(rules.grace_s), _us(rules.lease_ttl_s))

    def admit(self, key: PresentedKey, ask: Ask | None) -> tuple[tuple[str, ...], Sequence[Argument]]:
        """`ask` None: only look at the key."""
        mode, ask = ("look", _NOTHING) if ask is None else ("admit", ask)
        return layout.admission(key.tenant, key.key_id), (
            self.clock,
            mode,
            key.digest,
            *self._times,
            ask.request_id,
            "\n".join(ask.models),
            ask.tokens,
            ask.print,
            "1" if ask.retry else "",
            f"{ask.route} {ask.model}",
            key.key_id,
            "1" if ask.guided else "",
            "" if self.rules.guided is None else self.rules.guided,
        )

    def settle(self, done: Settlement) -> tuple[tuple[str, ...], Sequence[Argument]]:
        keys = layout.settlement(done.tenant, done.key_id, done.day)
        if done.lease in ("", IN_DOUBT):
            keys = (*keys, layout.settled(done.tenant, done.request_id))
        return keys, (
            self.clock,
            done.request_id,
            done.lease,
            self._times[0],
            done.prompt_tokens,
            done.completion_tokens,
            done.cached_tokens,
            done.outcome,
            done.tenant,
            done.key_id,
            done.model,
            done.route,
            "" if done.ttft_ms is None else done.ttft_ms,
            done.duration_ms,
            done.failovers,
            done.day,
            "" if done.window_tokens is None else done.window_tokens,
        )

    def renew(
        self, tenant: str, key_id: str, day: str, running: Sequence[Grant] = (), *, bury: int = 0
    ) -> tuple[tuple[str, ...], Sequence[Argument]]:
        """`running`: requests of this key, with a lease. bury: how many of others may be declared lost."""
        window, _, ttl = self._times
        args: list[Argument] = [self.clock, ttl, window, tenant, key_id, day, bury]
        for grant in running:
            prompt, completion, cached = grant.progress() if grant.progress is not None else (0, 0, 0)
            args += (grant.lease, f"{prompt} {completion} {cached} {grant.route} {grant.model}")
        return layout.renewal(tenant, key_id, day), args

    def trim(self, tenant: str, keep_s: float) -> tuple[tuple[str, ...], Sequence[Argument]]:
        return trimming(tenant, keep_s, clock=self.clock)


class Decoder:
    """Replies of admit.lua. Remembers each key's last record, which rarely changes, by its raw fields."""

    def __init__(self, remembered: int = 8192) -> None:
        self._records: dict[tuple[str, str], tuple[list[bytes | None], KeyRecord]] = {}
        self._most = remembered

    def admit(self, key: PresentedKey, reply: Reply) -> Verdict:
        status = reply[0].decode()
        if status == "unknown":
            return Verdict("unknown", 0.0, LimitState(), "", None)
        record = self._record(key, reply[6])
        state = limit_state(record.limits, reply[2], reply[3], reply[4] / 1_000_000)
        refused = None if status == "ok" else cast(Status, status)
        return Verdict(refused, reply[1] / 1_000_000, state, reply[5].decode(), record)

    def _record(self, key: PresentedKey, raw: list[bytes | None]) -> KeyRecord:
        known = self._records.get((key.tenant, key.key_id))
        if known is not None and known[0] == raw:
            return known[1]
        fields = {name: value.decode() for name, value in zip(FIELDS, raw, strict=True) if value}
        record = KeyRecord.from_hash(key.tenant, key.key_id, fields)
        if len(self._records) >= self._most:
            self._records.pop(next(iter(self._records)))
        self._records[key.tenant, key.key_id] = (raw, record)
        return record
