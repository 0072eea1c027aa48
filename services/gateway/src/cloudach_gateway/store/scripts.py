"""Lua scripts as values, put together from files and named by their SHA-1.

A script names its keys and arguments instead of counting them: `KEY.log`, `ARG.tokens`, `RECORD.rpm`. `load` puts
`KEYS[2]`, `ARGV[9]`, `record[6]` in their place, so a name costs Redis nothing. It fails where the script uses a name
that Python does not pass, and where Python passes an argument that the script does not use.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_INCLUDE = re.compile(r"^--@include ([\w.]+)$", re.MULTILINE)
_PART = re.compile(r"--\[\[@(\w+)\]\]")
_COMMENT = re.compile(r"--.*$", re.MULTILINE)
_NAME = re.compile(r"\b(KEY|ARG|RECORD)\.(\w+)")


class ScriptError(Exception):
    """A script and the Python that calls it do not agree. This is a mistake in the code, found when it is loaded."""


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script. `keys` has the pattern of each of its KEYS, `args` the name of each of its ARGV."""

    name: str
    source: bytes
    sha: bytes
    keys: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


def load(
    folder: Path,
    name: str,
    *,
    keys: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
    record: Sequence[str] = (),
    parts: Mapping[str, str] | None = None,
) -> Script:
    """Reads `<folder>/<name>.lua` and resolves what it names.

    `--@include other.lua` stands for another file, `--[[@part]]` for a text of `parts`. `keys` maps every name that the
    script may use to a Redis key's pattern. The names that it uses become its KEYS, in the mapping's order. `args` and
    `record` are the names of ARGV and of a table `record`, in order. `#ARG` is the number of arguments that have names.
    """
    parts = parts or {}

    def part(match: re.Match[str]) -> str:
        if match[1] not in parts:
            raise ScriptError(f"{name}.lua: there is no part {match[1]!r} to put into it")
        return parts[match[1]]

    text = (folder / f"{name}.lua").read_text()
    text = _PART.sub(part, text)
    text = _INCLUDE.sub(lambda match: (folder / match[1]).read_text(), text)
    return _resolved(name, text, keys or {}, tuple(args), tuple(record))


def of_text(name: str, text: str) -> Script:
    """Makes a script that counts its keys and arguments itself."""
    return _script(name, text)


def _resolved(name: str, text: str, keys: Mapping[str, str], args: tuple[str, ...], record: tuple[str, ...]) -> Script:
    text = _COMMENT.sub("", text)
    used = {(kind, word) for kind, word in _NAME.findall(text)}
    used_keys = tuple(word for word in keys if ("KEY", word) in used)
    tables = {"KEY": ("KEYS", used_keys), "ARG": ("ARGV", args), "RECORD": ("record", record)}

    def indexed(match: re.Match[str]) -> str:
        table, words = tables[match[1]]
        if match[2] not in words:
            raise ScriptError(f"{name}.lua: there is no {match[1]}.{match[2]}; there is {', '.join(words) or 'none'}")
        return f"{table}[{words.index(match[2]) + 1}]"

    text = _NAME.sub(indexed, text)
    for word in args:
        if ("ARG", word) not in used:
            raise ScriptError(f"{name}.lua: ARG.{word} is passed and not used")
    text = re.sub(r"#ARG\b", str(len(args)), text)
    return _script(name, text, tuple(keys[word] for word in used_keys), args)


def _script(name: str, text: str, keys: tuple[str, ...] = (), args: tuple[str, ...] = ()) -> Script:
    source = text.encode()
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode(), keys, args)
