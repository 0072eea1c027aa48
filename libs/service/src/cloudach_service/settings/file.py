"""From a YAML file to settings. Whatever is wrong is said with the name of the field."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from .group import FOLDER_OR_NAME, Group

Settings = TypeVar("Settings", bound=Group)

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_FOLDER = ("/", "./", "../", "~")


class ConfigError(Exception):
    """The configuration cannot be used; the message says which field and why."""


def load(kind: type[Settings], path: Path, *, variables: bool = False) -> Settings:
    """The settings of a file. Relative paths in it are relative to the folder that it lies in. Raises ConfigError.

    variables: take `${NAME}` and `${NAME:-default}` from the environment.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    settings = parse(kind, text, source=str(path), variables=variables)
    return anchored(settings, path.absolute().parent)


def parse(kind: type[Settings], text: str, *, source: str = "configuration", variables: bool = False) -> Settings:
    """Raises ConfigError, with one line for each bad field."""
    try:
        raw = yaml.safe_load(text)
        raw = {} if raw is None else raw
        if not isinstance(raw, dict):
            raise ConfigError(f"{source}: expected a mapping of settings")
        return kind.model_validate(expanded(raw) if variables else raw)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{source}: it is nested too deeply, or an anchor holds itself") from None
    except ValidationError as error:
        raise ConfigError(f"{source}:\n" + "\n".join(problems(error))) from error


def problems(error: ValidationError) -> list[str]:
    """One line for each bad field."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg'].removeprefix('Value error, ')}" for e in found]


def anchored(settings: Settings, folder: Path) -> Settings:
    """The settings with all relative paths, defaults too, made absolute below the folder."""
    changed = {
        name: _anchored(getattr(settings, name), folder, FOLDER_OR_NAME in field.metadata)
        for name, field in type(settings).model_fields.items()
    }
    return settings.model_copy(update={n: new for n, new in changed.items() if new is not getattr(settings, n)})


def _anchored(value: Any, folder: Path, folder_or_name: bool) -> Any:
    if isinstance(value, Group):
        return anchored(value, folder)
    if isinstance(value, tuple):
        return tuple(_anchored(item, folder, folder_or_name) for item in value)
    if isinstance(value, Path):
        return _below(folder, value)
    if folder_or_name and isinstance(value, str) and value.startswith(_FOLDER):
        return str(_below(folder, Path(value)))
    return value


def _below(folder: Path, path: Path) -> Path:
    try:
        return folder / path.expanduser()
    except RuntimeError as error:  # ~user, and there is no such user
        raise ConfigError(f"{path}: {error}") from error


def expanded(value: Any) -> Any:
    """The value with all `${NAME}` and `${NAME:-default}` in it taken from the environment. Raises ConfigError."""
    if isinstance(value, dict):
        return {key: expanded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expanded(item) for item in value]
    if not isinstance(value, str):
        return value

    def from_environment(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise ConfigError(f"the environment variable {match[1]} is not set, and ${{{match[1]}}} names no default")
        return found

    return _VARIABLE.sub(from_environment, value)
