"""Reads a YAML file into settings, by one set of rules for all services. An error names the line and the field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from .document import Document, NotYaml
from .group import FOLDER_OR_NAME, PASSED_ON, Group
from .variables import expanded

Settings = TypeVar("Settings", bound=Group)

_FOLDER = ("/", "./", "../", "~")


class ConfigError(Exception):
    """The configuration cannot be used. The message says which field is wrong and why, and holds no secret."""


def load(kind: type[Settings], path: Path) -> Settings:
    """Reads the settings of a file. Relative paths in it are relative to its folder. Raises ConfigError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    settings = parse(kind, text, source=str(path))
    return _anchored_group(settings, path.absolute().parent, "")


def parse(kind: type[Settings], text: str, *, source: str = "configuration") -> Settings:
    """Reads settings. `${NAME}` is taken from the environment. Raises ConfigError, with a line for each bad field."""
    try:
        document = Document(text)
        wrong = [_problem(document, field, "it is there twice") for field in document.repeated()]
        passed_on = {name for name, field in kind.model_fields.items() if PASSED_ON in field.metadata}
        refused = document.replace_texts(expanded, only_try=passed_on)
        wrong += [_problem(document, field, message) for field, message in refused]
        raw = document.values()
    except NotYaml as error:
        raise ConfigError(f"{source} is not YAML: {error}") from None
    if wrong:
        raise ConfigError(_problem_list(source, wrong))
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping of settings")
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        wrong = [_problem(document, e["loc"], e["msg"].removeprefix("Value error, ")) for e in found]
        raise ConfigError(_problem_list(source, wrong)) from None


def _problem_list(source: str, problems: Sequence[str]) -> str:
    return f"{source}:\n" + "\n".join(f"  {problem}" for problem in problems)


def _problem(document: Document, field: Sequence[int | str], message: str) -> str:
    """Says in one line what is wrong with a field. A rule about the whole file names its fields in the message."""
    line = document.line(field)
    parts = [f"line {line}"] if line is not None else []
    return ": ".join([*parts, *([".".join(map(str, field))] if field else []), message])


def _anchored_group(settings: Settings, folder: Path, prefix: str) -> Settings:
    """Makes all relative paths, also those of defaults, absolute below the folder. Raises ConfigError."""
    changed = {
        name: _anchored(getattr(settings, name), folder, FOLDER_OR_NAME in field.metadata, prefix + name)
        for name, field in type(settings).model_fields.items()
    }
    return settings.model_copy(update={n: new for n, new in changed.items() if new is not getattr(settings, n)})


def _anchored(value: Any, folder: Path, folder_or_name: bool, field: str) -> Any:
    if isinstance(value, Group):
        return _anchored_group(value, folder, f"{field}.")
    if isinstance(value, tuple):
        return tuple(_anchored(item, folder, folder_or_name, f"{field}.{at}") for at, item in enumerate(value))
    if isinstance(value, Path):
        return _below(folder, value, field)
    if folder_or_name and isinstance(value, str) and value.startswith(_FOLDER):
        return str(_below(folder, Path(value), field))
    return value


def _below(folder: Path, path: Path, field: str) -> Path:
    try:
        return folder / path.expanduser()
    except RuntimeError:
        raise ConfigError(f"{field}: there is no user whose home folder {path.parts[0]} would be") from None
