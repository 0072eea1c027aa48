"""Usage as stored: the totals of each day, and the stream of records. Calls block; the command line makes them.

They raise StoreDown in the place of whatever redis-py raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..store import layout
from ..store.client_redis import BlockingStore, translated
from ..store.scripts import Script

Entry = tuple[str, dict[str, str]]
"""A record's id in the stream, and its fields."""

_AT_ONCE = 1000

# Returns the totals of a day and how far the stream goes, at one and the same moment.
_SNAPSHOT = """
local stream = {}
if redis.call('EXISTS', KEYS[1]) == 1 then
  local flat = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #flat, 2 do stream[flat[i]] = flat[i + 1] end
end
local totals = {}
for i = 4, #KEYS do totals[i - 3] = redis.call('HGETALL', KEYS[i]) end
local last, trimmed = stream['last-generated-id'] or '0-0', redis.call('GET', KEYS[2]) or '0'
return {last, trimmed, redis.call('SMEMBERS', KEYS[3]), totals}
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Totals at one moment, by key id and then by layout.USAGE_FIELDS.

    `last` is the id of the last record that they include. Records written before `trimmed_ms` may be gone.
    """

    last: str
    trimmed_ms: int
    totals: dict[str, dict[str, int]]


class UsageStore(BlockingStore):
    """The stored usage, used as `with UsageStore(url) as usage`. Days are yyyymmdd, UTC."""

    def totals(self, tenant: str, days: Sequence[str]) -> Iterator[tuple[str, str, dict[str, int]]]:
        """Yields day, key id and totals by layout.USAGE_FIELDS, where there are any. Deleted keys have theirs, too."""
        with translated(self._address):
            used = self._many("smembers", [layout.used(tenant, day) for day in days])
            living = self._living(tenant)
        wanted = [(day, key_id) for day, ids in zip(days, used, strict=True) for key_id in sorted(living | ids)]
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            with translated(self._address):
                found = self._many("hgetall", [layout.usage(tenant, key_id, day) for day, key_id in part])
            for (day, key_id), fields in zip(part, found, strict=True):
                if fields:
                    yield day, key_id, _totals(fields)

    def snapshot(self, tenant: str, day: str) -> Snapshot:
        """Returns the totals of one day and the last record in them, while both grow."""
        head = (layout.records(tenant), layout.trimmed(tenant), layout.used(tenant, day))
        with translated(self._address):
            ids = sorted(self._living(tenant))
        while True:
            keys = (*head, *(layout.usage(tenant, key_id, day) for key_id in ids))
            with translated(self._address):
                last, trimmed, used, found = self._client.eval(_SNAPSHOT, len(keys), *keys)
            if set(used) <= set(ids):
                totals = {
                    key_id: _totals(dict(zip(flat[::2], flat[1::2], strict=True)))
                    for key_id, flat in zip(ids, found, strict=True)
                    if flat
                }
                return Snapshot(last, int(trimmed), totals)
            ids = sorted({*ids, *used})

    def records(self, tenant: str, first: str = "-", last: str = "+") -> Iterator[Entry]:
        """Yields the records with ids from `first` to `last`. A number of ms since 1970 will do for an id."""
        while True:
            with translated(self._address):
                found: list[Entry] = self._client.xrange(layout.records(tenant), first, last, count=_AT_ONCE)
            yield from found
            if len(found) < _AT_ONCE:
                return
            first = "(" + found[-1][0]

    def next_records(self, tenant: str, after: str, wait_ms: int) -> list[Entry]:
        """Returns what was written since the entry `after`. Waits for it at most `wait_ms`, which is below 5,000."""
        stream = layout.records(tenant)
        with translated(self._address):
            return _entries(self._client.xread({stream: after}, count=_AT_ONCE, block=wait_ms))

    def groups(self, tenant: str) -> list[str]:
        with translated(self._address):
            if not self._client.exists(layout.records(tenant)):
                return []
            return [str(group["name"]) for group in self._client.xinfo_groups(layout.records(tenant))]

    def make_group(self, tenant: str, group: str) -> None:
        """Makes a consumer group that begins with the first record kept. A group of this name stays as it is."""
        if group not in self.groups(tenant):
            with translated(self._address):
                self._client.xgroup_create(layout.records(tenant), group, id="0", mkstream=True)

    def read_group(
        self, tenant: str, group: str, consumer: str, after: str, most: int, wait_ms: int | None
    ) -> list[Entry]:
        """Reads as a consumer of a group.

        With `after` '>' these are records that nobody in the group has had. Otherwise they are the consumer's own
        unacknowledged records after that id. A record that was dropped from the stream meanwhile has no fields.
        """
        stream = layout.records(tenant)
        with translated(self._address):
            found = self._client.xreadgroup(group, consumer, {stream: after}, count=min(most, _AT_ONCE), block=wait_ms)
        return _entries(found)

    def acknowledge(self, tenant: str, group: str, entries: Sequence[Entry]) -> None:
        with translated(self._address):
            self._client.xack(layout.records(tenant), group, *(name for name, _ in entries))

    def run(self, script: Script, keys: tuple[str, ...], args: Sequence[Any]) -> Any:
        with translated(self._address):
            return self._client.eval(script.source, len(keys), *keys, *args)

    def _living(self, tenant: str) -> set[str]:
        """Returns the keys that exist. They may have totals of days on which `used` was not kept yet."""
        found: set[str] = self._client.smembers(layout.key_ids(tenant))
        return found

    def _many(self, command: str, names: Sequence[str]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            getattr(pipe, command)(name)
        found: list[Any] = pipe.execute()
        return found


def _totals(fields: Mapping[str, str]) -> dict[str, int]:
    return {name: int(fields.get(name, 0)) for name in layout.USAGE_FIELDS}


def _entries(reply: Any) -> list[Entry]:
    """Reads a reply of XREAD or XREADGROUP on one stream, in either protocol version of redis-py."""
    if not reply:
        return []
    found = reply[0][1] if isinstance(reply, list) else next(iter(reply.values()))
    return [(name, fields or {}) for name, fields in found]
