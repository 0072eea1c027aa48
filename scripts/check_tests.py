"""Fails where the tests would become hard to enter: `make check` runs it.

No test module is imported by another module. No suite imports from another suite, because what they share is in
tests/support. No file has more than 500 lines.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 500
SHARED = "support"


def main() -> int:
    found = [complaint for path in sorted(tests()) for complaint in complaints(path)]
    print("\n".join(found) or "The tests keep their rules.")
    return 1 if found else 0


def tests() -> Iterator[Path]:
    yield ROOT / "conftest.py"
    for pattern in ("tests/**/*.py", "services/*/tests/**/*.py", "libs/*/tests/**/*.py"):
        yield from ROOT.glob(pattern)


def complaints(path: Path) -> Iterator[str]:
    place = path.relative_to(ROOT)
    text = path.read_text()
    if (lines := len(text.splitlines())) > MOST_LINES:
        yield f"{place}: has {lines} lines, and {MOST_LINES} are the most: split it by subject"
    for line, module in imports(ast.parse(text), place):
        if any(part.startswith("test_") for part in module):
            yield f"{place}:{line}: imports from a test module; what is shared stands beside or in tests/{SHARED}"
        if module[0] == "tests" and module[1:2] not in ([SHARED], [suite(place)]):
            yield f"{place}:{line}: imports from another suite: move what is shared into tests/{SHARED}"


def suite(place: Path) -> str:
    return place.parts[1] if place.parts[0] == "tests" else ""


def imports(tree: ast.Module, place: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields each import's line with the full name of what is imported, part by part."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            package = list(place.parts[: len(place.parts) - node.level]) if node.level else []
            module = package + (node.module.split(".") if node.module else [])
            for name in node.names:
                yield node.lineno, [*module, name.name]


if __name__ == "__main__":
    sys.exit(main())
