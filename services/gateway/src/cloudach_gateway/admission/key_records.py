"""API keys as Redis stores them: their limits, their record, and who calls with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import LimitState


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of one API key; None: no limit. Requests and tokens are per minute, `concurrency` is at a time.

    `guided` is how many guided requests may run at a time for the key's whole tenant. None: as many as the gateway's
    settings say.
    """

    requests: int | None = None
    tokens: int | None = None
    concurrency: int | None = None
    guided: int | None = None


# The fields of the Redis hash that admit.lua reads and returns. Lua knows them by name: `RECORD.rpm`.
FIELDS = (
    "hash",
    "prev_hash",
    "prev_valid_until_ms",
    "name",
    "models",
    "rpm",
    "tpm",
    "concurrency",
    "expires_at_ms",
    "disabled",
    "created_at_ms",
    "guided",
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
    earlier_valid_until_ms: tuple[int, ...] = ()  # of secrets that were replaced before the previous one

    def allows(self, names: Sequence[str]) -> bool:
        return self.models is None or any(name in self.models for name in names)

    def to_hash(self) -> dict[str, str]:
        """Returns every field but the hashes. The empty string stands for None."""
        return {
            "name": self.name,
            "models": pack_models(self.models),
            "rpm": _text(self.limits.requests),
            "tpm": _text(self.limits.tokens),
            "concurrency": _text(self.limits.concurrency),
            "guided": _text(self.limits.guided),
            "expires_at_ms": _text(self.expires_at_ms),
            "disabled": "1" if self.disabled else "",
            "created_at_ms": _text(self.created_at_ms),
            "prev_valid_until_ms": _text(self.previous_valid_until_ms),
        }

    @classmethod
    def from_hash(cls, tenant: str, key_id: str, fields: Mapping[str, str]) -> KeyRecord:
        return cls(
            id=key_id,
            tenant=tenant,
            name=fields.get("name", ""),
            models=unpack_models(fields.get("models", "")),
            limits=KeyLimits(*(_number(fields.get(name)) for name in ("rpm", "tpm", "concurrency", "guided"))),
            created_at_ms=_number(fields.get("created_at_ms")) or 0,
            expires_at_ms=_number(fields.get("expires_at_ms")),
            disabled=fields.get("disabled") == "1",
            previous_valid_until_ms=_number(fields.get("prev_valid_until_ms")),
            earlier_valid_until_ms=tuple(until for _, until in unpack_secrets(fields.get("older", ""))),
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


@dataclass(frozen=True, slots=True)
class Caller:
    """The one who sends a request, and what the limits of its API key leave it."""

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
