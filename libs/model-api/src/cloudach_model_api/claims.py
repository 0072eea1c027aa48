"""This rule says which Model serves which name. The controller and the gateways both use it, so they agree. Pure.

A name belongs to the Model that holds it in its `status.names`, for as long as its spec asks for it. A name that nobody
holds goes to the oldest Model that asks for it. A Model that is being deleted asks for nothing. A Model that does not
get its own id is not served at all, so it holds nothing. If it fails to get an alias or an adapter's name, it is served
without that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .model import AdapterNames, Model

Key = tuple[str, str]
"""Namespace and name of a Model."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_DEPTH = 50
"""A chain of Models that each stand in the way of the next is followed for this many steps. Longer ones do not occur in
practice."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A Claim says what a Model asks for.

    `names` are its id and then its aliases. `held` are the names that its status tells it to hold.
    """

    key: Key
    made: datetime
    names: tuple[str, ...]
    adapters: tuple[AdapterNames, ...] = ()
    held: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: Model) -> Claim | None:
        """Returns None for a Model that is being deleted."""
        meta = model.metadata
        if meta.deletion_timestamp is not None:
            return None
        made, held = meta.creation_timestamp or _LONG_AGO, frozenset(model.status.names or ())
        return cls((meta.namespace, meta.name), made, model.names, model.adapters, held)

    @classmethod
    def unread(cls, obj: Mapping[str, Any]) -> Claim | None:
        """An object that is no valid Model claims the names that it holds, because what ran before goes on."""
        meta, names = obj["metadata"], (obj.get("status") or {}).get("names")
        if meta.get("deletionTimestamp") or not names or not all(isinstance(name, str) for name in names):
            return None
        made = datetime.fromisoformat(meta["creationTimestamp"])
        return cls((meta.get("namespace", ""), meta["name"]), made, tuple(names), (), frozenset(names))

    @property
    def age(self) -> tuple[datetime, Key]:
        """The oldest Model has the least value."""
        return self.made, self.key

    def all_names(self) -> Iterator[str]:
        yield from self.names
        for adapter in self.adapters:
            yield from adapter.names


@dataclass(frozen=True, slots=True)
class Refusal:
    """The Model asks for this name and does not get it. `owner` holds it; None means that it is reserved."""

    name: str
    owner: Key | None


@dataclass(frozen=True, slots=True)
class Grant:
    """A Grant says which names a Model gets.

    `names` are its id and its free aliases; without any, the Model is not served at all. `adapters` are those that are
    served, each with its free names. `wanted` are names of it that others ask for, with one who does.
    """

    names: tuple[str, ...] = ()
    adapters: tuple[AdapterNames, ...] = ()
    refused: tuple[Refusal, ...] = ()
    wanted: Mapping[str, Key] = field(default_factory=dict)

    @property
    def held(self) -> tuple[str, ...]:
        """Returns the names for `status.names`. An adapter's names that follow from an alias are left out, because they
        are too many.
        """
        own = self.names[:1]
        return self.names + tuple(
            name
            for adapter in self.adapters
            for name in adapter.names
            if name == adapter.id or name.rpartition(":")[0] in own
        )


NOTHING = Grant()


def allocate(claims: Iterable[Claim], reserved: Collection[str] = ()) -> dict[Key, Grant]:
    """Returns each Model's share of the names. No Model gets the names in `reserved`."""
    return _Allocation(sorted(claims, key=lambda claim: claim.age), reserved).run()


class _Allocation:
    def __init__(self, claims: list[Claim], reserved: Collection[str]) -> None:
        """`claims` are sorted, the oldest first."""
        self._claims = claims
        self._reserved = reserved
        self._owners: dict[str, Key] = {}
        self._holders = _holders(claims)
        self._out: dict[Key, bool] = {}

    def run(self) -> dict[Key, Grant]:
        for claim in self._claims:
            self._is_out(claim)
        found = {claim.key: self._grant(claim) for claim in self._claims}
        wanted: dict[Key, dict[str, Key]] = defaultdict(dict)
        for key, grant in found.items():
            for refusal in grant.refused:
                if refusal.owner is not None:
                    wanted[refusal.owner].setdefault(refusal.name, key)
        for owner, names in wanted.items():
            grant = found[owner]
            found[owner] = Grant(grant.names, grant.adapters, grant.refused, names)
        return found

    def _grant(self, claim: Claim) -> Grant:
        refused: list[Refusal] = []

        def free(names: Iterable[str]) -> tuple[str, ...]:
            got = []
            for name in names:
                if self._is_free(name, claim):
                    got.append(name)
                else:
                    refused.append(Refusal(name, self._owner(name)))
            return tuple(got)

        names = free(claim.names)
        if claim.names[0] not in names:
            return Grant(refused=tuple(refused))
        self._owners.update(dict.fromkeys(names, claim.key))
        adapters = []
        for adapter in claim.adapters:
            # Those behind a name that is another's have been refused with it.
            behind_others = {f"{name}:{adapter.name}" for name in claim.names if name not in names}
            got = free(name for name in dict.fromkeys(adapter.names) if name not in behind_others)
            if adapter.id in got:
                self._owners.update(dict.fromkeys(got, claim.key))
                adapters.append(AdapterNames(adapter.name, got))
        return Grant(names, tuple(adapters), tuple(refused))

    def _is_free(self, name: str, claim: Claim) -> bool:
        if name in self._reserved or name in self._owners:
            return False
        holder = self._holder(name)
        return holder is None or holder is claim

    def _owner(self, name: str) -> Key | None:
        if name in self._reserved:
            return None
        holder = self._holder(name)
        return self._owners.get(name) or (holder.key if holder is not None else None)

    def _holder(self, name: str) -> Claim | None:
        return next((claim for claim in self._holders.get(name, ()) if not self._out[claim.key]), None)

    def _is_out(self, claim: Claim, depth: int = 0) -> bool:
        """Tells if another Model is sure to get its id.

        If two Models stand in each other's way, the one that is asked first is not out.
        """
        if claim.key in self._out:
            return self._out[claim.key]
        self._out[claim.key] = False
        own = claim.names[0]
        if own in self._reserved:
            self._out[claim.key] = True
        elif depth < _DEPTH:
            for holder in self._holders.get(own, ()):
                if holder is claim:
                    break
                if not self._is_out(holder, depth + 1):
                    self._out[claim.key] = True
                    break
        return self._out[claim.key]


def _holders(claims: list[Claim]) -> dict[str, list[Claim]]:
    """Lists, for each name, the Models that ask for it and hold it. The best right comes first.

    A name in a status goes before one that only follows from an alias.
    """
    found: dict[str, list[tuple[bool, Claim]]] = defaultdict(list)
    for claim in claims:
        if not claim.held:
            continue
        for name in claim.names:
            if name in claim.held:
                found[name].append((False, claim))
        loaded = {name.rpartition(":")[2] for name in claim.held if name.rpartition(":")[0] in claim.held}
        for adapter in claim.adapters:
            for name in adapter.names:
                follows = adapter.name in loaded and name.rpartition(":")[0] in claim.held
                if name in claim.held or follows:
                    found[name].append((name not in claim.held, claim))
    return {
        name: [claim for _, claim in sorted(holders, key=lambda one: (one[0], one[1].age))]
        for name, holders in found.items()
    }


class Names:
    """It keeps the names of Models that come, change and go. `changed` is called with each Model whose share has
    changed.

    A change costs what the Models cost that ask for the same names, however many others there are.
    """

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._claims: dict[Key, Claim] = {}
        self._asking: defaultdict[str, set[Key]] = defaultdict(set)
        self._grants: dict[Key, Grant] = {}

    def __contains__(self, key: Key) -> bool:
        """Tells if the Model asks for any name."""
        return key in self._claims

    def grant(self, key: Key) -> Grant:
        return self._grants.get(key, NOTHING)

    def take(self, key: Key, claim: Claim | None) -> None:
        """From now on this Model asks for `claim`. None says that it is gone or being deleted, and asks for nothing."""
        old = self._claims.get(key)
        if claim == old:
            return
        affected: set[str] = set()
        if old is not None:
            affected.update(old.all_names())
            del self._claims[key]
            for name in old.all_names():
                self._asking[name].discard(key)
                if not self._asking[name]:
                    del self._asking[name]
        if claim is not None:
            affected.update(claim.all_names())
            self._claims[key] = claim
            for name in claim.all_names():
                self._asking[name].add(key)
        group = self._connected(affected)
        grants = allocate(self._claims[one] for one in group)
        for one in {*group, key}:
            grant = grants.get(one, NOTHING)
            if grant != self.grant(one):
                self._grants[one] = grant
                self._changed(one)
        if claim is None:
            self._grants.pop(key, None)

    def _connected(self, names: Iterable[str]) -> set[Key]:
        """Returns the Models that ask for one of these names, and those that share a name with them, and so on."""
        found: set[Key] = set()
        waiting = {key for name in names for key in self._asking.get(name, ())}
        while waiting:
            key = waiting.pop()
            found.add(key)
            for name in self._claims[key].all_names():
                waiting |= self._asking[name] - found
        return found
