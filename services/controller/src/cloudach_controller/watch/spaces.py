"""Some of the watched namespaces cannot be read. This module tells which, and which have been seen whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .informer import Informer


@dataclass(slots=True)
class Space:
    """A space holds the watches in one namespace, or in all of them if `namespace` is None."""

    namespace: str | None
    informers: Sequence[Informer]
    worked_on: bool = False

    @property
    def name(self) -> str:
        return self.namespace or "*"

    @property
    def begun(self) -> bool:
        """Tells if everything in it was seen. Before that, a missing RayService would be taken for deleted."""
        return all(each.synced.is_set() for each in self.informers)

    @property
    def refused(self) -> str:
        """Returns the API server's words if it does not let us read the namespace."""
        return next((each.refused for each in self.informers if each.refused), "")


def why_unready(spaces: Iterable[Space]) -> str:
    """Returns an empty text when the controller works. One namespace that cannot be read makes it no less ready for the
    others.
    """
    spaces = tuple(spaces)
    waiting = sum(not each.begun and not each.refused for each in spaces)
    if waiting:
        return f"the watches of {waiting} namespaces have not begun"
    return "" if any(each.begun for each in spaces) else notes(spaces)


def notes(spaces: Iterable[Space]) -> str:
    """Returns one line for each namespace that cannot be read."""
    return "\n".join(f"namespace {each.name} cannot be read: {each.refused}" for each in spaces if each.refused)
