"""API keys as Redis stores them: their limits, their record, and who calls with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from ..errors import LimitState


class LimitNames(NamedTuple):
    """How one limit of an API key is called: in Redis, and by operators."""

    stored: str  # in the record; Lua knows it as `RECORD.rpm`
    shown: str  # in the output of `cloudach keys`, and with dashes as its option
    words: str
    explained: str
    without: str = "none"  # what an operator types to take the limit away


def _limit(*names: str) -> Any:
    return field(default=None, metadata={"names": LimitNames(*names)})


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of one API key; None: no limit. Requests and tokens are per minute, `concurrency` is at a time.

    `guided` is how many guided requests may run at a time for the key's whole tenant. None: as many as the gateway's
    settings say. A new limit is a field here; how it is stored, shown and typed follows from its names.
    """

    requests: int | None = _limit("rpm", "requests_per_minute", "requests per minute", "requests in any 60 s")
    tokens: int | None = _limit(
        "tpm", "tokens_per_minute", "tokens per minute", "tokens of prompts and answers in any 60 s"
    )
    concurrency: int | None = _limit(
        "concurrency", "concurrent_streams", "concurrent streams", "requests that run at a time"
    )
    guided: int | None = _limit(
        "guided",
        "guided_requests",
        "guided requests",
        "guided requests that its tenant runs at a time, all its keys together",
        "default",
    )


LIMITS: dict[str, LimitNames] = {one.name: one.metadata["names"] for one in fields(KeyLimits)}
"""Every limit by its field of KeyLimits."""

# The fields of the Redis hash that admit.lua reads and returns. Lua knows them by name: `RECORD.rpm`.
FIELDS = (
    "hash",
    "prev_hash",
    "prev_valid_until_ms",
    "name",
    "models",
    "expires_at_ms",
    "disabled",
    "created_at_ms",
    *(limit.stored for limit in LIMITS.values()),
)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A stored key without its hashes. With `models` None it may use every model. Times are ms since 1970, UTC."""

    id: str
    tenant: str
    name: str
    models: tuple[str, ...] | None = None
    limits: KeyLimits = field(default_factory=KeyLimits)
    created_at_ms: int = 0
    expires_at_ms: int | None = None
    disabled: bool = False
    previous_valid_until_ms: int | None = None
    earlier_valid_until_ms: tuple[int, ...] = ()  # the ends of secrets that were replaced before the previous one

    def allows(self, names: Sequence[str]) -> bool:
        return self.models is None or any(name in self.models for name in names)

    def to_hash(self) -> dict[str, str]:
        """Returns every field but the hashes. The empty string stands for None."""
        return {
            "name": self.name,
            "models": pack_models(self.models),
            **{limit.stored: _text(getattr(self.limits, name)) for name, limit in LIMITS.items()},
            "expires_at_ms": _text(self.expires_at_ms),
            "disabled": "1" if self.disabled else "",
            "created_at_ms": _text(self.created_at_ms),
            "prev_valid_until_ms": _text(self.previous_valid_until_ms),
        }

    @classmethod
    def from_hash(cls, tenant: str, key_id: str, stored: Mapping[str, str]) -> KeyRecord:
        return cls(
            id=key_id,
            tenant=tenant,
            name=stored.get("name", ""),
            models=unpack_models(stored.get("models", "")),
            limits=KeyLimits(**{name: _number(stored.get(limit.stored)) for name, limit in LIMITS.items()}),
            created_at_ms=_number(stored.get("created_at_ms")) or 0,
            expires_at_ms=_number(stored.get("expires_at_ms")),
            disabled=stored.get("disabled") == "1",
            previous_valid_until_ms=_number(stored.get("prev_valid_until_ms")),
            earlier_valid_until_ms=tuple(until for _, until in unpack_secrets(stored.get("older", ""))),
        )


def pack_models(models: Sequence[str] | None) -> str:
    """Puts a newline before and after each name, so that the script finds a whole name by plain search."""
    return "" if models is None else "\n" + "".join(f"{name}\n" for name in models)


def unpack_models(packed: str) -> tuple[str, ...] | None:
    return tuple(packed.strip("\n").split("\n")) if packed.strip("\n") else (() if packed else None)


def pack_secrets(secrets: Iterable[tuple[str, int]]) -> str:
    """Writes the field `older`: digests, and until when they are valid (ms). Only admit.lua and rotations read it."""
    return "\n".join(f"{digest}:{until}" for digest, until in secrets)


def unpack_secrets(packed: str) -> list[tuple[str, int]]:
    pairs = (line.split(":") for line in packed.split("\n") if line)
    return [(digest, int(until)) for digest, until in pairs]


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def _number(value: str | None) -> int | None:
    return int(value) if value else None


class Caller(NamedTuple):
    """The sender of a request: its API key's record, and what the limits of that key have left."""

    record: KeyRecord
    limits: LimitState

    @property
    def key_id(self) -> str:
        return self.record.id

    @property
    def tenant(self) -> str:
        return self.record.tenant

    @property
    def name(self) -> str:
        return self.record.name

    def may_use(self, names: Sequence[str]) -> bool:
        """`names` are those under which one model is known."""
        return self.record.allows(names)

    @property
    def models(self) -> tuple[str, ...] | None:
        return self.record.models
