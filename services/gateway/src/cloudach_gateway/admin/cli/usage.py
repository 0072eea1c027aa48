"""cloudach usage: what was used, for people and for billing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from ...admission.script_calls import trimming
from ...admission.scripts import TRIM
from ...store.layout import BILLING, USAGE_FIELDS
from .. import books
from ..usage_store import UsageStore
from . import output, usage_records
from .values import WrongUsage, day, duration, key_id, positive, tenant, word

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_KEPT = timedelta(days=400)  # totals
_SKEW = timedelta(days=1)
_SKEW_MS = 3_600_000  # between the clocks of a gateway, which names the day, and of Redis
_BY = {"day": ("day",), "key": ("tenant", "key"), "tenant": ("tenant",), None: ("day", "tenant", "key")}


class UsageProblem(Exception):
    """An operator asked for something that cannot be done. The message says why."""


def add_to(commands: Commands, where: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("usage", help="show, export, reconcile and trim what was used", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, run: Callable[[argparse.Namespace, UsageStore], int], text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, parents=[where], help=text, description=text)
        made.set_defaults(run=lambda options, url: _with_store(run, options, url))
        return made

    def one(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
        text = "whose" if required else "only this tenant's (default: every tenant's)"
        parser.add_argument("--tenant", type=tenant, required=required, metavar="TENANT", help=text)

    def form(parser: argparse.ArgumentParser, *choices: str) -> None:
        parser.add_argument("--format", choices=choices, default=choices[0], help=f"(default: {choices[0]})")

    totals = action("totals", _totals, "Totals by day, tenant and key; those of deleted keys too. Days are UTC.")
    one(totals)
    totals.add_argument("--key", type=key_id, metavar="KEY", help="only this key's: its id, or the key itself")
    totals.add_argument(
        "--from", type=day, dest="first", metavar="DAY", help="YYYY-MM-DD (default: the first of --to's month)"
    )
    totals.add_argument("--to", type=day, dest="last", metavar="DAY", help="YYYY-MM-DD, included (default: today)")
    totals.add_argument("--by", choices=[name for name in _BY if name], help="add up (default: a row for each)")
    form(totals, "table", "csv", "json")

    records = action(
        "records",
        _records,
        "Usage records, one for each request: to look at, or as a consumer of a group, which gets each at least once.",
    )
    one(records, required=True)
    records.add_argument("--from", type=day, dest="first", metavar="DAY", help="written on YYYY-MM-DD or later")
    records.add_argument("--to", type=day, dest="last", metavar="DAY", help="written on YYYY-MM-DD or before")
    records.add_argument(
        "--group", type=word, help=f"read as a member of this consumer group ({BILLING} always exists)"
    )
    records.add_argument(
        "--consumer", type=word, metavar="NAME", help="who reads; what it has not acknowledged comes first"
    )
    records.add_argument("--ack", action="store_true", help="acknowledge what was written to stdout")
    records.add_argument("--create-group", action="store_true", help="make the group, from the first record kept on")
    records.add_argument("--count", type=positive, metavar="N", help="at most so many (default: all there are)")
    records.add_argument("--follow", action="store_true", help="go on with those to come, until Ctrl-C")
    form(records, "jsonl", "csv")

    reconcile = action(
        "reconcile",
        _reconcile,
        "Add up the records of a day and compare with its totals. Exit code 1 if they disagree.",
    )
    one(reconcile)
    reconcile.add_argument("--day", type=day, metavar="DAY", help="YYYY-MM-DD, UTC (default: today)")
    form(reconcile, "table", "csv", "json")

    trim = action(
        "trim", _trim, "Drop old records. Gateways do this by themselves for those that every group has read."
    )
    one(trim)
    trim.add_argument(
        "--older-than", type=duration, default=duration("7d"), metavar="DURATION", help="such as 30d (default: 7d)"
    )
    trim.add_argument("--unread", action="store_true", help="also those that no billing has acknowledged")


def _with_store(run: Callable[[argparse.Namespace, UsageStore], int], options: argparse.Namespace, url: str) -> int:
    try:
        store = UsageStore(url)
    except ValueError as error:
        raise UsageProblem(str(error)) from error
    with store:
        return run(options, store)


def _tenants(options: argparse.Namespace, store: UsageStore) -> list[str]:
    found = store.tenants()
    if options.tenant is None:
        return found
    if options.tenant not in found:
        raise UsageProblem(f"--tenant: there is no tenant {options.tenant}")
    return [options.tenant]


def _totals(options: argparse.Namespace, store: UsageStore) -> int:
    today = _today(store)
    last = options.last or today
    first = options.first or last.replace(day=1)
    if first > last:
        raise WrongUsage(f"--from: {first} is after {last}")
    # A gateway's clock, which names the day, may be ahead of Redis'.
    days = [f"{found:%Y%m%d}" for found in _days(max(first, today - _KEPT), min(last, today + _SKEW))]
    rows = (
        ({"day": _iso(of), "tenant": name, "key": key}, totals)
        for name in _tenants(options, store)
        for of, key, totals in store.totals(name, days)
        if options.key in (None, key)
    )
    by = _BY[options.by]
    print(output.rows(options.format, (*by, *USAGE_FIELDS), books.grouped(rows, by)))
    return 0


def _records(options: argparse.Namespace, store: UsageStore) -> int:
    if options.group is None:
        for name in ("consumer", "ack", "create_group"):
            if getattr(options, name):
                raise WrongUsage(f"--{name.replace('_', '-')}: only with --group")
        if options.follow and options.last:
            raise WrongUsage("--to: not with --follow")
        if options.first and options.last and options.first > options.last:
            raise WrongUsage(f"--from: {options.first} is after {options.last}")
    elif options.consumer is None:
        raise WrongUsage("--consumer: needed with --group, so that what it did not acknowledge comes again")
    elif options.first or options.last:
        raise WrongUsage(f"--{'from' if options.first else 'to'}: not with --group, which knows what it has read")
    _tenants(options, store)
    writer = usage_records.Writer(options.format, sys.stdout)
    if options.group is None:
        found = usage_records.look(
            store,
            options.tenant,
            first="-" if options.first is None else str(_ms(options.first)),
            last="+" if options.last is None else str(_ms(options.last + timedelta(days=1)) - 1),
            follow=options.follow,
        )
        return usage_records.write(found, writer, options.count)
    if options.group == BILLING or options.create_group:
        store.make_group(options.tenant, options.group)
    elif options.group not in store.groups(options.tenant):
        raise UsageProblem(f"--group: there is no group {options.group} of {options.tenant}; --create-group makes it")
    return usage_records.consume(
        store,
        options.tenant,
        options.group,
        options.consumer,
        writer,
        most=options.count,
        follow=options.follow,
        acknowledge=options.ack,
    )


def _reconcile(options: argparse.Namespace, store: UsageStore) -> int:
    when = options.day or _today(store)
    name, begin_ms = f"{when:%Y%m%d}", max(0, _ms(when) - _SKEW_MS)
    found: list[dict[str, str | int]] = []
    requests = 0
    for of in _tenants(options, store):
        snapshot = store.snapshot(of, name)
        if snapshot.trimmed_ms > begin_ms:
            kept = datetime.fromtimestamp(snapshot.trimmed_ms / 1000, UTC)
            raise UsageProblem(f"--day: records of {of} before {kept:%Y-%m-%d %H:%M} UTC have been dropped")
        entries = store.records(of, str(begin_ms), snapshot.last)
        sums = books.add_up(books.typed(fields) for _, fields in entries if fields["day"] == name)
        requests += sum(totals["requests"] for totals in snapshot.totals.values())
        found += [
            {"tenant": of, "key": key, "field": what, "totals": said, "records": counted}
            for key, what, said, counted in books.differences(snapshot.totals, sums.keys)
        ]
        found += [
            {"tenant": of, "key": "", "field": f"twice: {twice}", "totals": 1, "records": 2} for twice in sums.twice
        ]
    if found or options.format != "table":
        print(output.rows(options.format, ("tenant", "key", "field", "totals", "records"), found))
    else:
        print(f"{when}: totals and records agree, {requests} requests")
    return 1 if found else 0


def _trim(options: argparse.Namespace, store: UsageStore) -> int:
    for name in _tenants(options, store):
        keys, args = trimming(name, options.older_than.total_seconds(), unread=options.unread)
        dropped = 0
        while some := int(store.run(TRIM, keys, args)):  # Redis drops about 10,000 at a time
            dropped += some
        print(f"{name}: {dropped} records dropped")
    return 0


def _today(store: UsageStore) -> date:
    return datetime.fromtimestamp(store.now_ms() / 1000, UTC).date()


def _days(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += timedelta(days=1)


def _ms(when: date) -> int:
    """Returns when the day begins, UTC."""
    return round(datetime(when.year, when.month, when.day, tzinfo=UTC).timestamp() * 1000)


def _iso(name: str) -> str:
    return f"{name[:4]}-{name[4:6]}-{name[6:]}"
