"""Calls of the limiter's scripts: makes their arguments and reads the reply of admit.lua."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from ..errors import LimitState
from ..store import layout
from ..store.store import Argument
from ..store.store import Reply as RawReply
from .api_keys import PresentedKey
from .grants import IN_DOUBT, NOTHING_ASKED, Ask, Grant, Settlement
from .key_records import FIELDS, KeyRecord
from .refusals import limit_state
from .rules import Rules
from .scripts import LIMITER, RULES, TRIM, Limiter, Renewal, Reply, Trimming

Call = tuple[tuple[str, ...], Sequence[Argument]]
"""KEYS and ARGV of a script."""

_AS_IT_IS = frozenset({str, int})
_KEEP_MARKS_S = 2 * 86400.0  # how late the settlement of a request that was declared lost may come


class Verdict(NamedTuple):
    """A verdict is what admit.lua decided. refused: None if admitted. record: None only for an unknown key."""

    refused: str | None
    wait_s: float
    limits: LimitState
    lease: str
    record: KeyRecord | None


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _packed(value: Any) -> Argument:
    """Texts and numbers go as they are. Several texts have a line each, True is '1', None and False are ''."""
    if type(value) in _AS_IT_IS:
        return value  # type: ignore[no-any-return]
    if type(value) is tuple:
        return "\n".join(value)
    return "1" if value else ""


def _all_packed(values: Iterable[Any]) -> list[Argument]:
    """Packs each value. Most values go as they are, and a call for each would cost more than the packing."""
    return [value if type(value) in _AS_IT_IS else _packed(value) for value in values]


def _rules_packed(rules: Rules) -> tuple[Argument, ...]:
    """The arguments that `scripts.RULES` names, in the same order."""
    values = ((field.name, getattr(rules, field.name)) for field in fields(rules))
    return tuple(_us(value) if name.endswith("_s") else _packed(value) for name, value in values)


def trimming(tenant: str, keep_s: float, *, unread: bool = False, clock: str = "") -> Call:
    """Makes a call of TRIM. With `unread`, records are dropped also if nobody has read them."""
    args = Trimming(clock, _us(keep_s), _us(_KEEP_MARKS_S), "1" if unread else "")
    return layout.keys_of(TRIM.keys, tenant), args


class Encoder:
    """Makes the calls. Tests set `clock`, a time in us, in the place of Redis' own."""

    def __init__(self, rules: Rules | None = None, limiter: Limiter = LIMITER) -> None:
        self.rules = rules or Rules()
        self.limiter = limiter
        self.clock = ""
        self._rules = _rules_packed(self.rules)
        by_name = dict(zip(RULES, self._rules, strict=True))
        self._window_us, self._lease_ttl_us = int(by_name["window_us"]), int(by_name["lease_ttl_us"])
        *lasting, settled = limiter.settle.keys
        assert settled == layout.KEYS["settled"]
        self._settle_keys = tuple(lasting)

    def admit(self, key: PresentedKey, ask: Ask | None) -> Call:
        """Makes a call of admit.lua. With `ask` None the script only looks at the key."""
        mode, ask = ("look", NOTHING_ASKED) if ask is None else ("admit", ask)
        return layout.keys_of(self.limiter.admit.keys, key.tenant, key.key_id), (
            self.clock,
            mode,
            key.digest,
            key.key_id,
            *self._rules,
            *_all_packed(ask),
        )

    def settle(self, done: Settlement) -> Call:
        """Makes a call of settle.lua."""
        keys = layout.keys_of(self._settle_keys, done.tenant, done.key_id, done.day)
        if done.lease in ("", IN_DOUBT):
            keys = (*keys, layout.settled(done.tenant, done.request_id))
        return keys, (self.clock, self._window_us, *["" if value is None else value for value in done])

    def renew(self, tenant: str, key_id: str, day: str, running: Sequence[Grant] = (), *, most_lost: int = 0) -> Call:
        """`running` are requests of this API key that have a lease. `most_lost` of others may be declared lost."""
        named = Renewal(self.clock, self._lease_ttl_us, self._window_us, tenant, key_id, day, most_lost)
        args: list[Argument] = [*named]
        for grant in running:
            prompt, completion, cached = grant.progress() if grant.progress is not None else (0, 0, 0)
            args += (grant.lease, f"{prompt} {completion} {cached} {grant.route} {grant.model}")
        return layout.keys_of(self.limiter.renew.keys, tenant, key_id, day), args

    def trim(self, tenant: str, keep_s: float) -> Call:
        return trimming(tenant, keep_s, clock=self.clock)


class Decoder:
    """Reads the replies of admit.lua. Remembers each key's last record, which rarely changes, by its raw fields."""

    def __init__(self, remembered: int = 8192) -> None:
        self._records: dict[tuple[str, str], tuple[list[bytes | None], KeyRecord]] = {}
        self._most = remembered

    def admit(self, key: PresentedKey, raw: RawReply) -> Verdict:
        if len(raw) == 1:  # such a key's record is not told
            return Verdict(raw[0].decode(), 0.0, LimitState(), "", None)
        reply = Reply(*raw)
        record = self._record(key, reply.record)
        state = limit_state(record.limits, reply.requests, reply.tokens, reply.reset_us / 1_000_000)
        refused = None if reply.status == b"ok" else reply.status.decode()
        return Verdict(refused, reply.wait_us / 1_000_000, state, reply.lease.decode(), record)

    def _record(self, key: PresentedKey, raw: list[bytes | None]) -> KeyRecord:
        known = self._records.get((key.tenant, key.key_id))
        if known is not None and known[0] == raw:
            return known[1]
        values = {name: value.decode() for name, value in zip(FIELDS, raw, strict=True) if value}
        record = KeyRecord.from_hash(key.tenant, key.key_id, values)
        if len(self._records) >= self._most:
            self._records.pop(next(iter(self._records)))
        self._records[key.tenant, key.key_id] = (raw, record)
        return record
