"""cloudach keys: the API keys of an installation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...admission.key_records import LIMITS, KeyLimits, KeyRecord
from .. import keys
from ..key_store import KeyStore
from . import output
from .terminal import interrupted_afterwards, nobody_reads, say_at_once
from .values import count, duration, milliseconds, moment, names

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_UNCHANGED: Any = object()
_CHANGED_AT_ONCE = "Takes effect with the next request."


def add_to(commands: Commands, where: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("keys", help="create, list, limit, rotate and delete API keys", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, run: Callable[[argparse.Namespace, KeyStore], int], text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, parents=[where], help=text, description=text)
        made.add_argument("--json", action="store_true", help="print JSON, for programs")
        made.set_defaults(run=lambda options, url: _with_store(run, options, url))
        return made

    def key_action(name: str, run: Callable[[argparse.Namespace, KeyStore], int], text: str) -> argparse.ArgumentParser:
        made = action(name, run, text)
        made.add_argument("key", metavar="KEY", help="the key's id, or the key itself")
        return made

    create = action("create", _create, "Make a key. It is printed once, and only its hash is stored.")
    create.add_argument("--tenant", required=True, help="the tenant that gets the key: 1 to 32 of a-z, 0-9 and _")
    create.add_argument("--name", default="", help="what it is for, to tell keys apart")
    create.add_argument("--expires", type=moment, metavar="WHEN", help="30d, 2030-01-31 or never (default: never)")
    _add_limits(create, None, "no limit")

    listing = action("list", _list, "List the keys. Secrets are not stored, so they cannot be shown.")
    listing.add_argument("--tenant", help="only this tenant's")
    key_action("show", _show, "Show one key and what it used today.")
    limit = key_action("limit", _limit, f"Change what a key may do; what is not named stays. {_CHANGED_AT_ONCE}")
    _add_limits(limit, _UNCHANGED, "unchanged")
    key_action("disable", _disable, "Refuse a key (403) until it is enabled again. Running requests go on.")
    key_action("enable", _enable, "Take a disabled key into use again.")
    expire = key_action("expire", _expire, f"Set when a key ends (401 from then on). {_CHANGED_AT_ONCE}")
    expire.add_argument("--at", type=moment, required=True, metavar="WHEN", help="30d, 2030-01-31, now or never")
    rotate = key_action("rotate", _rotate, "Give a key a new secret. Id, limits and usage stay.")
    rotate.add_argument(
        "--grace",
        type=duration,
        default=duration("24h"),
        metavar="DURATION",
        help="how long the old secret works beside the new one; earlier ones keep their own grace. "
        "0: neither it nor they work any more (default: 24h)",
    )
    key_action("delete", _delete, "Delete a key for good (401 from then on). What it used stays on the books.")


def _add_limits(parser: argparse.ArgumentParser, default: Any, meaning: str) -> None:
    group = parser.add_argument_group("limits")

    def add(flag: str, kind: Callable[[str], object], metavar: str, text: str) -> None:
        group.add_argument(flag, type=kind, default=default, metavar=metavar, help=f"{text} (default: {meaning})")

    for limit in LIMITS.values():
        option = "--" + limit.shown.replace("_", "-")
        add(option, partial(count, without=limit.without), f"N|{limit.without}", limit.explained)
    add("--models", names, "A,B|all", "model names that it may use")


def _with_store(run: Callable[[argparse.Namespace, KeyStore], int], options: argparse.Namespace, url: str) -> int:
    try:
        store = KeyStore(url)
    except ValueError as error:
        raise keys.KeyProblem(str(error)) from error
    with store:
        return run(options, store)


def _create(options: argparse.Namespace, store: KeyStore) -> int:
    limits = KeyLimits(**{name: getattr(options, limit.shown) for name, limit in LIMITS.items()})
    with interrupted_afterwards():
        made = keys.create(
            store,
            tenant=options.tenant,
            name=options.name,
            models=options.models,
            limits=limits,
            expires_at_ms=milliseconds(options.expires),
        )
        return _show_secret(options, made)


def _list(options: argparse.Namespace, store: KeyStore) -> int:
    records = keys.listing(store, options.tenant)
    if options.json:
        print(output.as_json([output.key_json(record) for record in records]))
    elif records:
        print(output.key_table(records, store.now_ms()))
    else:
        print("There are no keys. Make one with: cloudach keys create --tenant NAME")
    return 0


def _show(options: argparse.Namespace, store: KeyStore) -> int:
    record = keys.find(store, options.key)
    today = keys.used_today(store, record)
    if options.json:
        print(output.as_json(output.key_json(record) | {"used_today": today}))
    else:
        print(output.details(record))
        print("used today   ", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in today.items()))
    return 0


def _limit(options: argparse.Namespace, store: KeyStore) -> int:
    named = {name: getattr(options, limit.shown) for name, limit in LIMITS.items()}
    changes = {name: value for name, value in named.items() if value is not _UNCHANGED}
    models = ... if options.models is _UNCHANGED else options.models
    if not changes and models is ...:
        raise keys.KeyProblem("nothing to change: name a limit")
    return _report(options, keys.limit(store, options.key, models=models, **changes))


def _disable(options: argparse.Namespace, store: KeyStore) -> int:
    return _report(options, keys.disable(store, options.key))


def _enable(options: argparse.Namespace, store: KeyStore) -> int:
    return _report(options, keys.enable(store, options.key))


def _expire(options: argparse.Namespace, store: KeyStore) -> int:
    return _report(options, keys.expire(store, options.key, milliseconds(options.at)))


def _rotate(options: argparse.Namespace, store: KeyStore) -> int:
    grace_ms = round(options.grace.total_seconds() * 1000)
    with interrupted_afterwards():
        made = keys.rotate(store, options.key, grace_ms=grace_ms)
        for until in made.ended_ms:
            print(f"cloudach: an earlier secret, valid until {output.iso(until)}, has ended", file=sys.stderr)
        return _show_secret(options, made)


def _delete(options: argparse.Namespace, store: KeyStore) -> int:
    record = keys.delete(store, options.key)
    print(output.as_json(output.key_json(record)) if options.json else f"deleted {record.id} of {record.tenant}")
    return 0


def _show_secret(options: argparse.Namespace, made: keys.NewKey) -> int:
    """Shows the secret first, and on stderr if stdout does not take it, because nobody can show it again."""
    try:
        say_at_once(output.as_json(output.key_json(made.record, made.api_key)) if options.json else made.api_key)
    except OSError as error:
        print(f"cloudach: stdout took nothing ({error.strerror or error}). The key: {made.api_key}", file=sys.stderr)
        nobody_reads()
        return 1
    if not options.json:
        print()
        print(output.details(made.record))
        print("\nKeep the key now: only its hash is stored, and it is not shown again.")
    return 0


def _report(options: argparse.Namespace, record: KeyRecord) -> int:
    print(output.as_json(output.key_json(record)) if options.json else output.details(record))
    return 0
