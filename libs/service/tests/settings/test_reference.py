from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from cloudach_service.settings import Group, Port, Seconds, Secret
from cloudach_service.settings.reference import NotDescribed, help_text, sections
from pydantic import Field


class Part(Group):
    """A part of a thing."""

    share: float = Field(0.5, gt=0, le=1, description="its share")


class Thing(Group):
    """One thing."""

    name: str = Field(description="what it is called")
    parts: tuple[Part, ...] = Field((), description="its parts")


class Store(Group):
    """Where things lie,
    and for how long."""

    folder: Path | None = Field(None, description="where they lie")
    keep_s: Seconds = Field(60.0, description="how long")
    wait_s: float = Field(0.0, ge=0, le=1e9, description="how long for the first")
    most_bytes: int = Field(10, ge=1, description="how much")
    looks_per_s: float = Field(2.0, gt=0, description="how often")
    port: Port = Field(80, description="where it listens")
    key: Secret = Field(None, description="what opens it")
    kind: Literal["a", "b", "c"] = Field("a", description="which")
    more: dict[str, str] = Field(default_factory=dict, description="more")
    named: str = Field("", description="a name")


class Settings(Group):
    """Everything."""

    things: tuple[Thing, ...] = Field(min_length=1, description="the things")
    store: Store = Store()
    on: bool = Field(True, description="off: nothing happens")


def test_each_setting_with_what_it_may_be_and_its_default() -> None:
    found = {s.path: (s.kind, s.default) for section in sections(Settings) for s in section.settings}
    assert found == {
        "things": ("list of mappings, at least one", "required"),
        "on": ("true or false", "true"),
        "things[].name": ("text", "required"),
        "things[].parts": ("list of mappings", "[]"),
        "things[].parts[].share": ("number, more than 0, at most 1", "0.5"),
        "store.folder": ("path", "none"),
        "store.keep_s": ("seconds", "60"),
        "store.wait_s": ("seconds, 0 or more", "0"),
        "store.most_bytes": ("bytes, whole, 1 or more", "10"),
        "store.looks_per_s": ("number, more than 0", "2"),
        "store.port": ("whole number, 0 to 65535", "80"),
        "store.key": ("text", "none"),
        "store.kind": ("`a`, `b` or `c`", "a"),
        "store.more": ("mapping", "{}"),
        "store.named": ("text", "empty"),
    }


def test_the_sections_are_the_groups() -> None:
    assert [(section.name, section.description) for section in sections(Settings)] == [
        ("", ""),
        ("things[]", "One thing."),
        ("things[].parts[]", "A part of a thing."),
        ("store", "Where things lie, and for how long."),
    ]


def test_help_lists_them_all() -> None:
    told = help_text(Settings)
    assert "  store.keep_s  (seconds; default: 60)\n      how long\n" in told
    assert "  things  (list of mappings, at least one; required)\n      the things\n" in told


class Silent(Group):
    name: str = "a"


class SilentGroup(Group):
    silent: Silent = Field(Silent(), description="it says nothing of itself")


class TwoBounds(Group):
    wait_s: Annotated[Seconds, Field(le=5)] = Field(1.0, description="pydantic would let 6 pass")
    late_s: Seconds = Field(1.0, le=5, description="this, too")


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Silent, "name of Silent"), (SilentGroup, "Silent has no docstring"), (TwoBounds, "two bounds of one kind")],
)
def test_a_setting_that_says_too_little_or_too_much_is_refused(kind: type[Group], said: str) -> None:
    with pytest.raises(NotDescribed, match=said):
        sections(kind)


def test_why_two_bounds_of_one_kind_are_refused() -> None:
    assert TwoBounds(late_s=6).late_s == 6


def test_any_value_is_said_too() -> None:
    class Free(Group):
        """Free."""

        args: dict[str, Any] = Field(default_factory=dict, description="passed through")
        values: tuple[Any, ...] = Field((), description="passed through")

    kinds = [setting.kind for section in sections(Free) for setting in section.settings]
    assert kinds == ["mapping", "list of any values"]
