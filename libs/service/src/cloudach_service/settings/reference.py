"""Lists the settings of a class for people: in `--help` and in docs/reference/settings.md."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from annotated_types import BaseMetadata
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from .group import Group

_UNITS = {"_per_s": "", "_s": "seconds", "_days": "days", "bytes": "bytes"}
_NO_TIMER_BEYOND = 1e9  # the bound of group.Seconds
_KINDS = {"string": "text", "boolean": "true or false", "object": "mapping", "null": "nothing"}

SAID = ("required", "none", "empty", "see below")
"""The page says one of these where a default would not stand in the file as it is."""


class NotDescribed(Exception):
    """A setting does not say what it is for, or says two things about what it may be."""


@dataclass(frozen=True, slots=True)
class Setting:
    path: str
    kind: str
    default: str
    """As it would stand in the file, or one of the words of `SAID`."""
    description: str

    @property
    def is_in_words(self) -> bool:
        return self.default in SAID


@dataclass(frozen=True, slots=True)
class Section:
    """The settings of one group. `name` is empty for those that stand at the top of the file."""

    name: str
    description: str
    settings: tuple[Setting, ...]


def sections(kind: type[Group]) -> list[Section]:
    """Lists all settings, group by group. Those without a group come first. Raises NotDescribed."""
    groups = {name: _group(field.annotation) for name, field in kind.model_fields.items()}
    top = [_setting(kind, name, "") for name, group in groups.items() if group is None or _many(kind, name)]
    found = [Section("", "", tuple(top))] if top else []
    for name, group in groups.items():
        if group is not None:
            found += _below(group, f"{name}[]" if _many(kind, name) else name)
    return found


def _below(kind: type[Group], path: str) -> Iterator[Section]:
    if not kind.__doc__:
        raise NotDescribed(f"{path}: {kind.__name__} has no docstring")
    yield Section(
        path,
        " ".join(kind.__doc__.split()),
        tuple(_setting(kind, name, f"{path}.") for name in kind.model_fields),
    )
    for name, field in kind.model_fields.items():
        group = _group(field.annotation)
        if group is not None:
            yield from _below(group, f"{path}.{name}[]" if _many(kind, name) else f"{path}.{name}")


def help_text(kind: type[Group]) -> str:
    """Returns a list of all settings for the end of a `--help`."""
    lines: list[str] = []
    for section in sections(kind):
        for setting in section.settings:
            lines.append(f"  {setting.path}  ({setting.kind}; {_default(setting)})")
            lines += textwrap.wrap(setting.description, 110, initial_indent="      ", subsequent_indent="      ")
    return "Settings:\n" + "\n".join(lines)


def _default(setting: Setting) -> str:
    return setting.default if setting.default == "required" else f"default: {setting.default}"


def _setting(kind: type[Group], name: str, prefix: str) -> Setting:
    field = kind.model_fields[name]
    group = _group(field.annotation)
    bounds = [type(bound) for bound in field.metadata if isinstance(bound, BaseMetadata)]
    if len(set(bounds)) < len(bounds):
        raise NotDescribed(
            f"{prefix}{name} of {kind.__name__} has two bounds of one kind: pydantic heeds only the last"
        )
    description = field.description or (group.__doc__ if group is not None else None)
    if not description:
        raise NotDescribed(f"{prefix}{name} of {kind.__name__} has no description")
    return Setting(prefix + name, _kind(field, name), _shown_default(field), " ".join(description.split()))


def _group(annotation: Any) -> type[Group] | None:
    """Returns the group that a field holds, or that each entry of its list is."""
    if isinstance(annotation, type) and issubclass(annotation, Group):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _group(inner)) is not None), None)


def _many(kind: type[Group], name: str) -> bool:
    return not isinstance(kind.model_fields[name].annotation, type)


def _kind(field: FieldInfo, name: str) -> str:
    schema = TypeAdapter(field.rebuild_annotation()).json_schema()
    unit = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "")
    return _words(schema, schema.get("$defs", {}), unit)


def _words(schema: dict[str, Any], definitions: dict[str, Any], unit: str) -> str:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return " or ".join(_words(one, definitions, unit) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        *first, last = (f"`{one}`" for one in schema["enum"])
        return f"{', '.join(first)} or {last}"
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("format") == "path":
        return "path"
    match schema.get("type"):
        case "array":
            return f"list of {_words(schema.get('items', {}), definitions, '')}s" + (
                ", at least one" if schema.get("minItems") else ""
            )
        case "integer" | "number" as number:
            word = unit or ("whole number" if number == "integer" else "number")
            return word + _bounds(schema, unit)
        case str() as other:
            return _KINDS[other]
    return "any value"


def _bounds(schema: dict[str, Any], unit: str) -> str:
    least, above, most = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    if most == _NO_TIMER_BEYOND:
        most = None
    if above is not None and (least is not None or (unit, above) == ("seconds", 0)):
        above = None  # the page says once that every duration is more than 0
    parts = ["whole"] if unit and schema["type"] == "integer" else []
    if least is not None and most is not None:
        return "".join(f", {part}" for part in (*parts, f"{_number(least)} to {_number(most)}"))
    parts += [f"{_number(least)} or more"] if least is not None else []
    parts += [f"more than {_number(above)}"] if above is not None else []
    parts += [f"at most {_number(most)}"] if most is not None else []
    return "".join(f", {part}" for part in parts)


def _shown_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "none"
    if isinstance(value, Group):
        return "see below"
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else _number(value)
    if isinstance(value, str | Path):
        return str(value) or "empty"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
