"""Brings usage records from Redis to stdout, each at least once. They are acknowledged only when they are written."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from ..books import RECORD_FIELDS, typed
from ..usage_store import Entry, UsageStore
from . import output
from .terminal import interrupted_afterwards, nobody_reads

_AT_ONCE = 1000
_WAIT_MS = 2000


class Writer:
    """Writes records as jsonl, or as csv with a head. Their field `entry` is the record's id in the stream."""

    def __init__(self, format: str, out: TextIO) -> None:
        self._format = format
        self._out = out
        self._headed = format != "csv"

    def write(self, entries: Sequence[Entry]) -> None:
        """Returns when the operating system has the entries. Raises BrokenPipeError when nobody reads any more."""
        if not self._headed:
            self._out.write(output.csv_line(("entry", *RECORD_FIELDS)))
            self._headed = True
        for name, fields in entries:
            record = {"entry": name, **typed(fields)}
            if self._format == "csv":
                self._out.write(output.csv_line(record.get(field) for field in ("entry", *RECORD_FIELDS)))
            else:
                self._out.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._out.flush()


def look(store: UsageStore, tenant: str, *, first: str, last: str, follow: bool) -> Iterator[list[Entry]]:
    """Yields batches of what is there, and with `follow` also of what comes, without end."""
    batch: list[Entry] = []
    after = "0-0" if first in ("-", "0") else f"{int(first) - 1}-{2**64 - 1}"
    for entry in store.records(tenant, first, last):
        after = entry[0]
        batch.append(entry)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    yield batch
    while follow:
        found = store.next_records(tenant, after, _WAIT_MS)
        if found:
            after = found[-1][0]
            yield found


def write(found: Iterator[list[Entry]], writer: Writer, most: int | None) -> int:
    """Writes at most `most` of them. Returns the exit code."""
    try:
        for entries in found:
            writer.write(entries if most is None else entries[:most])
            if most is not None:
                most -= len(entries)
                if most <= 0:
                    break
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        nobody_reads()
        return 1
    return 0


def consume(
    store: UsageStore,
    tenant: str,
    group: str,
    consumer: str,
    writer: Writer,
    *,
    most: int | None,
    follow: bool,
    acknowledge: bool,
) -> int:
    """Writes a consumer's records to `writer`: first those that it has not acknowledged, then new ones.

    `most` bounds their number. With `follow` it waits for more, and with `acknowledge` Redis drops them from the
    consumer's list once they are written. Returns the exit code.
    """
    after = "0"
    left = sys.maxsize if most is None else most
    try:
        writer.write([])
        while left > 0:
            entries = store.read_group(
                tenant, group, consumer, after, min(left, _AT_ONCE), _WAIT_MS if follow and after == ">" else None
            )
            if not entries:
                if after == ">" and not follow:
                    break
                after = ">"
                continue
            # Records that were dropped unread have nothing to say, but would come again and again.
            there = [entry for entry in entries if entry[1]]
            with interrupted_afterwards():
                writer.write(there)
                if acknowledge:
                    store.acknowledge(tenant, group, entries)
            if after != ">":
                after = entries[-1][0]
            left -= len(there)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        nobody_reads()
        return 1
    return 0
