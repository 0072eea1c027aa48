"""Administration of API keys. `create` and `rotate` return the secret once, and it is stored nowhere.

Every function takes a KeyStore. It raises KeyProblem for what the operator can mend, and StoreDown when Redis is away.
A key is named by its id, or by the key itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import EllipsisType

from ..admission.api_keys import KEY_ID, TENANT, digest, new_api_key, new_key_id, parse_api_key
from ..admission.key_records import LIMITS, KeyLimits, KeyRecord, pack_secrets
from ..errors import InvalidApiKey
from ..store.trouble import StoreDown
from .key_store import KeyStore

LONGEST_NAME = 100
MOST_EARLIER = 8  # how many secrets before the previous one may still be valid


class KeyProblem(Exception):
    """An operator asked for something that cannot be done. The message says why."""


class InDoubt(Exception):
    """Redis did not say if it has stored the new secret, so the secret may be in force."""

    def __init__(self, api_key: str, cause: StoreDown) -> None:
        super().__init__(str(cause))
        self.api_key = api_key


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with its new secret. `ended_ms` has the ends of earlier secrets that this rotation has cut short."""

    record: KeyRecord
    api_key: str  # shown once
    ended_ms: tuple[int, ...] = ()


def create(
    store: KeyStore,
    *,
    tenant: str,
    name: str = "",
    models: Sequence[str] | None = None,
    limits: KeyLimits | None = None,
    expires_at_ms: int | None = None,
) -> NewKey:
    """Makes and stores a key. With `models` None it may use every model. `expires_at_ms` counts since 1970, UTC.

    Raises KeyProblem, or InDoubt if the store did not confirm it.
    """
    if not TENANT.fullmatch(tenant):
        raise KeyProblem(f"{tenant!r} is no tenant name: 1 to 32 of a-z, 0-9 and _")
    now_ms = store.now_ms()
    record = KeyRecord(
        id=new_key_id(),
        tenant=tenant,
        name=_name(name),
        models=_models(models),
        limits=_limits(limits or KeyLimits()),
        created_at_ms=now_ms,
        expires_at_ms=_expiry(expires_at_ms, now_ms),
    )
    api_key = new_api_key(tenant, record.id)
    try:
        store.add(record, digest(api_key))
    except StoreDown as error:
        raise InDoubt(api_key, error) from error
    return NewKey(record, api_key)


def find(store: KeyStore, which: str) -> KeyRecord:
    """Finds a key by its id or by the key itself."""
    try:
        presented = parse_api_key(which)
    except InvalidApiKey:
        return _by_id(store, which)
    record = store.get(presented.tenant, presented.key_id)
    if record is None:
        raise KeyProblem(f"there is no key {presented.key_id}")
    return record


def listing(store: KeyStore, tenant: str | None = None) -> list[KeyRecord]:
    """Lists keys by tenant and age."""
    found = store.records([tenant] if tenant else store.tenants())
    return sorted(found, key=lambda record: (record.tenant, record.created_at_ms, record.id))


def limit(
    store: KeyStore,
    which: str,
    *,
    models: Sequence[str] | EllipsisType | None = ...,
    **limits: int | None,
) -> KeyRecord:
    """Changes the limits that are named: fields of KeyLimits, and models. None takes a limit away."""
    record = find(store, which)
    changed = replace(record, limits=_limits(replace(record.limits, **limits)))
    if models is not ...:
        changed = replace(changed, models=_models(models))
    stored = changed.to_hash()
    names = ("models", *(limit.stored for limit in LIMITS.values()))
    return _changed(store, record, changed, {name: stored[name] for name in names})


def used_today(store: KeyStore, record: KeyRecord) -> dict[str, int]:
    """Returns the totals since midnight UTC."""
    day = datetime.fromtimestamp(store.now_ms() / 1000, UTC).strftime("%Y%m%d")
    return store.usage(record.tenant, record.id, day)


def disable(store: KeyStore, which: str) -> KeyRecord:
    """Disables a key. Requests with it get a 403 from now on; those that run go on."""
    record = find(store, which)
    return _changed(store, record, replace(record, disabled=True), {"disabled": "1"})


def enable(store: KeyStore, which: str) -> KeyRecord:
    record = find(store, which)
    return _changed(store, record, replace(record, disabled=False), {"disabled": ""})


def expire(store: KeyStore, which: str, at_ms: int | None) -> KeyRecord:
    """Sets when a key expires. With None it never does, with a past time at once."""
    record = find(store, which)
    return _changed(
        store, record, replace(record, expires_at_ms=at_ms), {"expires_at_ms": "" if at_ms is None else str(at_ms)}
    )


def rotate(store: KeyStore, which: str, *, grace_ms: int) -> NewKey:
    """Gives a key a new secret. Its id, limits and usage stay.

    The old secret works for `grace_ms` more. Secrets that it had replaced keep their own grace. With a grace of 0 all
    of them end at once.
    """
    record = find(store, which)
    old = store.digest(record.tenant, record.id)
    now_ms = store.now_ms()
    earlier = [(secret, until) for secret, until in store.replaced(record.tenant, record.id) if until > now_ms]
    ended = () if grace_ms else tuple(until for _, until in earlier)
    kept = earlier if grace_ms else []
    if len(kept) > MOST_EARLIER:
        raise KeyProblem(
            f"{len(kept)} earlier secrets of {record.id} are still valid, and no more are kept: "
            "wait until one has ended, or end all of them with --grace 0"
        )
    api_key = new_api_key(record.tenant, record.id)
    changed = replace(
        record,
        previous_valid_until_ms=now_ms + grace_ms,
        earlier_valid_until_ms=tuple(until for _, until in kept),
    )
    fields = {
        "hash": digest(api_key),
        "prev_hash": old or "",
        "prev_valid_until_ms": changed.to_hash()["prev_valid_until_ms"],
        "older": pack_secrets(kept),
    }
    try:
        stored = old is not None and store.change(record.tenant, record.id, fields, only_if_digest=old)
    except StoreDown as error:
        raise InDoubt(api_key, error) from error
    if not stored:
        raise KeyProblem(f"the key {record.id} was changed by someone else meanwhile; try again")
    return NewKey(changed, api_key, ended)


def delete(store: KeyStore, which: str) -> KeyRecord:
    """Deletes a key for good. Its usage totals stay."""
    record = find(store, which)
    if not store.remove(record.tenant, record.id):
        raise KeyProblem(f"there is no key {record.id}")
    return record


def _by_id(store: KeyStore, key_id: str) -> KeyRecord:
    if not KEY_ID.fullmatch(key_id):
        raise KeyProblem(f"{_shortened(key_id)!r} is neither a key id nor a key")
    for tenant in store.tenants():
        record = store.get(tenant, key_id)
        if record is not None:
            return record
    raise KeyProblem(f"there is no key {key_id}")


def _changed(store: KeyStore, old: KeyRecord, new: KeyRecord, fields: dict[str, str]) -> KeyRecord:
    if not store.change(old.tenant, old.id, fields):
        raise KeyProblem(f"there is no key {old.id}")
    return new


def _limits(limits: KeyLimits) -> KeyLimits:
    for name, limit in LIMITS.items():
        value = getattr(limits, name)
        if value is not None and not 1 <= value <= 10**12:
            raise KeyProblem(f"{limit.words}: {value} is not a positive number; to stop a key, disable it")
    return limits


def _models(models: Sequence[str] | None) -> tuple[str, ...] | None:
    if models is None:
        return None
    for model in models:
        if not model.strip() or any(not character.isprintable() for character in model):
            raise KeyProblem(f"{model!r} is no model name")
    if not models:
        raise KeyProblem("a key that may use no model is of no use: name one, or disable the key")
    return tuple(dict.fromkeys(models))


def _name(name: str) -> str:
    if len(name) > LONGEST_NAME or any(not character.isprintable() for character in name):
        raise KeyProblem(f"a name has at most {LONGEST_NAME} printable characters")
    return name


def _expiry(at_ms: int | None, now_ms: int) -> int | None:
    if at_ms is not None and at_ms <= now_ms:
        raise KeyProblem("the key would have expired already")
    return at_ms


def _shortened(text: str) -> str:
    """Shortens a text, so that no message has a whole secret."""
    return text if len(text) <= 16 else text[:12] + "…"
