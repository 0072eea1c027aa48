"""Takes values from the environment where a file says `${NAME}`, so that a secret need not stand in the file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

_REFERENCE = re.compile(r"\$(?:(?P<literal>\$\{)|\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?)")


def expanded(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Replaces each `${NAME}` and `${NAME:-default}` in the text. `$${` stands for the characters `${`.

    Raises ValueError when a variable is not set and has no default, or when `${` begins no reference. The message names
    the variable and holds nothing else of the text, because the text may be a secret.
    """
    known = os.environ if environment is None else environment

    def value(match: re.Match[str]) -> str:
        if match["literal"]:
            return "${"
        name: str | None = match["name"]
        if name is None:
            raise ValueError("a ${ in it begins no ${NAME} and no ${NAME:-default}; write $${ for the characters ${")
        found = known.get(name, match["default"])
        if found is None:
            raise ValueError(f"the environment variable {name} is not set, and ${{{name}}} has no default")
        return found

    return _REFERENCE.sub(value, text)


def escaped(value: Any) -> Any:
    """Writes `$${` for each `${` in the texts, so that a service which reads them gets them back as they are."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value
