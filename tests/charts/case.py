"""One value of the chart, and where it comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.helm import NAME, Objects

Look = Callable[[Objects], Any]


@dataclass(frozen=True)
class Case:
    """With `path: value` (and `others`), `look` finds `expected`; with the default it finds something else."""

    path: str
    value: Any
    look: Look
    expected: Any
    others: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("--set", "preflight=false")
    name: str = ""
    same: bool = False  # the default comes out alike

    def values(self) -> dict[str, Any]:
        return nested({**self.others, self.path: self.value})

    def default_values(self) -> dict[str, Any]:
        return nested(dict(self.others))


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def annotations(kind: str, part: str, name: str = "example.com/a") -> Look:
    return lambda o: o.get(kind, part)["metadata"].get("annotations", {}).get(name)


def labels(kind: str, part: str, name: str = "team") -> Look:
    return lambda o: o.get(kind, part)["metadata"]["labels"].get(name)


def spec(kind: str, part: str, *path: str | int) -> Look:
    return lambda o: dig(o.get(kind, part)["spec"], *path)


def pod(part: str, *path: str | int) -> Look:
    return lambda o: dig(o.pod(part), *path)


def container(part: str, *path: str | int) -> Look:
    return lambda o: dig(o.container(part), *path)


def config(part: str, *path: str | int) -> Look:
    return lambda o: dig(o.config(part), *path)


def dig(value: Any, *path: str | int) -> Any:
    """None where the path ends early."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def contains(look: Look, item: Any) -> Look:
    return lambda o: item in (look(o) or ())


def there(kind: str, part: str) -> Look:
    return lambda o: any(name in (part, f"{NAME}-{part}") for name in o.names(kind))


def has_kind(kind: str) -> Look:
    return lambda o: bool(o.all(kind))


def everywhere(place: str, key: str) -> Look:
    """Whether all objects carry it, and all pods."""

    def look(o: Objects) -> bool:
        metadata = [one["metadata"] for one in o]
        metadata += [one["spec"]["template"]["metadata"] for one in o if "template" in one.get("spec", {})]
        return all(key in one.get(place, {}) for one in metadata)

    return look
