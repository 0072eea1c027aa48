"""Key administration against a real Valkey."""

from __future__ import annotations

import re

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admin.keys import KeyProblem
from cloudach_gateway.admission.api_keys import digest, new_api_key, new_key_id, parse_api_key
from cloudach_gateway.admission.key_records import KeyLimits
from cloudach_gateway.store import layout


def test_the_format_of_a_key() -> None:
    secrets = {new_api_key("acme", new_key_id()) for _ in range(100)}
    assert len(secrets) == 100
    for api_key in secrets:
        assert re.fullmatch(r"sk-cld-acme-[a-z2-7]{10}-[0-9A-Za-z]{40}", api_key)
        assert parse_api_key(api_key).tenant == "acme"


def test_only_the_hash_is_stored(key_store: KeyStore, client: redis.Redis, tenant: str) -> None:
    made = keys.create(key_store, tenant=tenant, name="chat", models=["a", "b"], limits=KeyLimits(1, 2, 3))
    secret = made.api_key.rsplit("-", 1)[1]
    stored = client.hgetall(layout.key_record(tenant, made.record.id))
    assert stored["hash"] == digest(made.api_key)
    assert not any(secret in value for value in stored.values())
    assert secret not in repr(made.record)
    for name in client.scan_iter(f"cloudach:{{{tenant}}}:*"):
        assert secret not in name


def test_what_was_created_is_found_again(key_store: KeyStore, tenant: str) -> None:
    made = keys.create(
        key_store,
        tenant=tenant,
        name="Größe 1",
        models=["a", "org/b:c"],
        limits=KeyLimits(1, None, 3),
        expires_at_ms=key_store.now_ms() + 60_000,
    )
    assert keys.find(key_store, made.record.id) == made.record
    assert keys.find(key_store, made.api_key) == made.record
    assert keys.listing(key_store, tenant) == [made.record]
    assert made.record in keys.listing(key_store)


def test_limits_change_one_by_one(key_store: KeyStore, make_key) -> None:
    made = make_key(requests=1, tokens=2, concurrency=3)
    keys.limit(key_store, made.record.id, tokens=20)
    assert keys.find(key_store, made.record.id).limits == KeyLimits(1, 20, 3)
    keys.limit(key_store, made.record.id, requests=None, models=["a"])
    changed = keys.find(key_store, made.record.id)
    assert (changed.limits, changed.models) == (KeyLimits(None, 20, 3), ("a",))
    keys.limit(key_store, made.record.id, models=None)
    assert keys.find(key_store, made.record.id).models is None


def test_delete_leaves_only_usage(key_store: KeyStore, client: redis.Redis, make_key, tenant: str) -> None:
    made = make_key()
    client.hincrby(layout.usage(tenant, made.record.id, "20260101"), "requests", 7)
    keys.delete(key_store, made.record.id)
    assert list(client.scan_iter(f"cloudach:{{{tenant}}}:*")) == [layout.usage(tenant, made.record.id, "20260101")]
    assert key_store.usage(tenant, made.record.id, "20260101")["requests"] == 7
    for action in (keys.delete, keys.disable, keys.enable):
        with pytest.raises(KeyProblem, match="there is no key"):
            action(key_store, made.record.id)


def test_a_key_deleted_meanwhile_does_not_come_back(
    key_store: KeyStore, client: redis.Redis, make_key, tenant: str
) -> None:
    made = make_key()
    client.delete(layout.key_record(tenant, made.record.id))
    assert not key_store.change(tenant, made.record.id, {"disabled": "1"})
    assert not client.exists(layout.key_record(tenant, made.record.id))


def test_two_rotations_at_once_do_not_lose_a_secret(key_store: KeyStore, make_key, tenant: str) -> None:
    made = make_key()
    assert key_store.change(tenant, made.record.id, {"hash": "x"}, only_if_digest=digest(made.api_key))
    assert not key_store.change(tenant, made.record.id, {"hash": "y"}, only_if_digest=digest(made.api_key))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"tenant": "De-v"}, "no tenant name"),
        ({"tenant": ""}, "no tenant name"),
        ({"tenant": "a" * 33}, "no tenant name"),
        ({"tenant": "a\n"}, "no tenant name"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "a" * 101}, "at most 100"),
        ({"models": []}, "no use"),
        ({"models": ["a\nb"]}, "no model name"),
        ({"models": [" "]}, "no model name"),
        ({"limits": KeyLimits(requests=0)}, "requests per minute"),
        ({"limits": KeyLimits(tokens=-1)}, "tokens per minute"),
        ({"limits": KeyLimits(concurrency=10**13)}, "concurrent streams"),
        ({"expires_at_ms": 1}, "already"),
    ],
)
def test_bad_input(key_store: KeyStore, client: redis.Redis, tenant: str, what: dict, message: str) -> None:
    with pytest.raises(KeyProblem, match=message):
        keys.create(key_store, **{"tenant": tenant, **what})
    assert list(client.scan_iter(f"cloudach:{{{tenant}}}:*")) == []


@pytest.mark.parametrize("which", ["zzzzzzzzzz", "x", "sk-cld-nobody-zzzzzzzzzz-" + "a" * 40])
def test_no_such_key(key_store: KeyStore, which: str) -> None:
    with pytest.raises(KeyProblem):
        keys.find(key_store, which)


def test_no_whole_secret_in_a_message(key_store: KeyStore) -> None:
    with pytest.raises(KeyProblem) as problem:
        keys.find(key_store, "sk-cld-acme-zzz-" + "S" * 40)
    assert "SSSS" not in str(problem.value)
