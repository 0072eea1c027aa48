"""The keys of every tenant, as stored. Blocking: for the command line and the start-up, not for the event loop.

Raises StoreDown, whatever redis-py raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..admission.key_records import KeyRecord, unpack_secrets
from ..store import layout
from ..store.client_redis import BlockingStore, translated

# Only what exists is changed: a key deleted meanwhile must not come back as half a record.
_CHANGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[1] ~= '' then
  if redis.call('HGET', KEYS[1], 'hash') ~= ARGV[1] then return -1 end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
"""


class KeyStore(BlockingStore):
    """`with KeyStore(url) as keys`. Records come without the hashes of their secrets."""

    def get(self, tenant: str, key_id: str) -> KeyRecord | None:
        with translated(self._address):
            fields = self._client.hgetall(layout.key_record(tenant, key_id))
        return KeyRecord.from_hash(tenant, key_id, fields) if fields else None

    def digest(self, tenant: str, key_id: str) -> str | None:
        with translated(self._address):
            found = self._client.hget(layout.key_record(tenant, key_id), "hash")
        return str(found) if found else None

    def replaced(self, tenant: str, key_id: str) -> list[tuple[str, int]]:
        """Digests of the secrets that a rotation has replaced, the latest first, and until when they are valid (ms)."""
        names = ("prev_hash", "prev_valid_until_ms", "older")
        with translated(self._address):
            digest, until, older = self._client.hmget(layout.key_record(tenant, key_id), *names)
        latest = [(digest, int(until))] if digest and until else []
        return [*latest, *unpack_secrets(older or "")]

    def add(self, record: KeyRecord, digest: str) -> None:
        """A new key. The record comes last: what is listed and not there is not shown."""
        with translated(self._address):
            self._client.sadd(layout.TENANTS, record.tenant)
            self._client.sadd(layout.key_ids(record.tenant), record.id)
            self._client.hset(layout.key_record(record.tenant, record.id), mapping={**record.to_hash(), "hash": digest})

    def change(self, tenant: str, key_id: str, fields: Mapping[str, str], *, only_if_digest: str = "") -> bool:
        """False when there is no such key, or its secret is not the one named."""
        flat = [part for item in fields.items() for part in item]
        with translated(self._address):
            return int(self._client.eval(_CHANGE, 1, layout.key_record(tenant, key_id), only_if_digest, *flat)) == 1

    def remove(self, tenant: str, key_id: str) -> bool:
        """Its usage totals stay. Requests that run are settled still."""
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
        """Totals of one UTC day (yyyymmdd) by layout.USAGE_FIELDS; zeros when there was none."""
        with translated(self._address):
            found = self._client.hgetall(layout.usage(tenant, key_id, day))
        return {name: int(found.get(name, 0)) for name in layout.USAGE_FIELDS}
