"""Lua scripts as values: loaded from `.lua` files, with `--@include other.lua` lines resolved, named by their SHA-1."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

_INCLUDE = re.compile(r"^--@include ([\w.]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    source: bytes
    sha: bytes


def load(folder: Path, name: str) -> Script:
    """Reads `<folder>/<name>.lua`."""
    text = _INCLUDE.sub(lambda match: (folder / match[1]).read_text(), (folder / f"{name}.lua").read_text())
    return of_text(name, text)


def of_text(name: str, text: str) -> Script:
    source = text.encode()
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())
