"""Takes the marked examples out of a Markdown file.

An example is a fenced block that follows a line `<!-- example: NAME -->`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

GUIDE = ROOT / "docs" / "guide" / "streaming.md"
SEED = ROOT / "tests" / "guide" / "seed" / "streaming-guide.md"

_MARKER = re.compile(r"<!--\s*example:\s*(\S+)\s*-->")
_FENCE = re.compile(r"(`{3,})(\w*)")


@dataclass(frozen=True)
class Example:
    name: str
    language: str
    code: str


class BadMarkdown(Exception):
    """A marker without its block, a block without its end, or a name used twice."""


def read(path: Path) -> dict[str, Example]:
    return parse(path.read_text(), source=path.name)


def parse(text: str, *, source: str = "text") -> dict[str, Example]:
    """Raises BadMarkdown."""
    found: dict[str, Example] = {}
    lines = enumerate(text.splitlines(), start=1)
    name = None
    for number, line in lines:
        marker, fence = _MARKER.fullmatch(line), _FENCE.fullmatch(line)
        if fence is not None:
            code = []
            for _, inner in lines:
                if inner == fence[1]:
                    break
                code.append(inner + "\n")
            else:
                raise BadMarkdown(f"{source}:{number}: the block is not closed")
            if name is not None:
                found[name] = Example(name, fence[2], "".join(code))
            name = None
        elif name is not None and line.strip():
            raise BadMarkdown(f"{source}:{number}: the block of {name} must follow its marker")
        elif marker is not None:
            name = marker[1]
            if name in found:
                raise BadMarkdown(f"{source}:{number}: {name} is used twice")
    if name is not None:
        raise BadMarkdown(f"{source}: the block of {name} is missing")
    return found


def unmarked_blocks(text: str) -> int:
    """How many fenced blocks have no marker, and so are not run."""
    fences = [line for line in text.splitlines() if _FENCE.fullmatch(line)]
    return len(fences) // 2 - len(parse(text))
