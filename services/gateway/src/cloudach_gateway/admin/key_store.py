"""The API keys of every tenant, as stored. Calls block, so the event loop must not make them.

They raise StoreDown in the place of whatever redis-py raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..admission.key_records import KeyRecord, unpack_secrets
from ..store import layout
from ..store.client_redis import BlockingStore, translated

# Only what exists is changed, because a key deleted meanwhile must not come back as half a record.
_CHANGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[1] ~= '' then
  if redis.call('HGET', KEYS[1], 'hash') ~= ARGV[1] then return -1 end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
"""


class KeyStore(BlockingStore):
    """The stored keys, used as `with KeyStore(url) as keys`. Records come without the hashes of their secrets."""

    def get(self, tenant: str, key_id: str) -> KeyRecord | None:
        with translated(self._address):
            fields = self._client.hgetall(layout.key_record(tenant, key_id))
        return KeyRecord.from_hash(tenant, key_id, fields) if fields else None

    def digest(self, tenant: str, key_id: str) -> str | None:
        with translated(self._address):
            found = self._client.hget(layout.key_record(tenant, key_id), "hash")
        return str(found) if found else None

    def replaced(self, tenant: str, key_id: str) -> list[tuple[str, int]]:
        """Returns the digests that rotations have replaced, the latest first, and until when they are valid (ms)."""
        names = ("prev_hash", "prev_valid_until_ms", "older")
        with translated(self._address):
            digest, until, older = self._client.hmget(layout.key_record(tenant, key_id), *names)
        latest = [(digest, int(until))] if digest and until else []
        return [*latest, *unpack_secrets(older or "")]

    def add(self, record: KeyRecord, digest: str) -> None:
        """Stores a new key. The record is written last, because a key that is listed and has no record is not shown."""
        with translated(self._address):
            self._client.sadd(layout.TENANTS, record.tenant)
            self._client.sadd(layout.key_ids(record.tenant), record.id)
            self._client.hset(layout.key_record(record.tenant, record.id), mapping={**record.to_hash(), "hash": digest})

    def change(self, tenant: str, key_id: str, fields: Mapping[str, str], *, only_if_digest: str = "") -> bool:
        """Changes fields of a key. Returns False when there is no such key, or its secret is not the one named."""
        flat = [part for item in fields.items() for part in item]
        with translated(self._address):
            return int(self._client.eval(_CHANGE, 1, layout.key_record(tenant, key_id), only_if_digest, *flat)) == 1

    def remove(self, tenant: str, key_id: str) -> bool:
        """Deletes a key. Returns False if there is none. Usage totals stay, and requests that still run are settled."""
        with translated(self._address):
            gone = self._client.delete(layout.key_record(tenant, key_id))
            for name in layout.limiter_keys(tenant, key_id):
                self._client.delete(name)
            self._client.srem(layout.key_ids(tenant), key_id)
        return bool(gone)

    def records(self, tenants: Iterable[str]) -> Iterator[KeyRecord]:
        for tenant in tenants:
            with translated(self._address):
                ids = sorted(self._client.smembers(layout.key_ids(tenant)))
            for key_id in ids:
                record = self.get(tenant, key_id)
                if record is not None:
                    yield record

    def usage(self, tenant: str, key_id: str, day: str) -> dict[str, int]:
        """Returns the totals of one UTC day (yyyymmdd) by layout.USAGE_FIELDS. Without usage they are zeros."""
        with translated(self._address):
            found = self._client.hgetall(layout.usage(tenant, key_id, day))
        return {name: int(found.get(name, 0)) for name in layout.USAGE_FIELDS}
