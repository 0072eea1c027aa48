"""Finds docstrings that are hard to read, so that plain English stays plain: `make check` runs it.

    python scripts/check_docstrings.py

No docstring begins with a bare "Of", "The same", "Whether", "Who" or "What", and no sentence has more than 25 words.
Texts below a field or a constant count as docstrings, too. Indented blocks and rows with columns are left alone.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ("libs/*/src", "services/*/src", "scripts", "charts/cloudach/files")
NOT_YET = ()
"""These packages are being gone through. A package leaves this list when the check finds nothing in it."""
MOST_WORDS = 25
_BARE = re.compile(r"(Of|The same|Whether|Who|What)\b")
_ROW = re.compile(r"^\s{4}|\S {2,}\S")
_END = re.compile(r"(?<=[.!?:])[\"”')`*]*\s+|\n\s*\n|\n(?=- )")


def main() -> int:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {problem}"
        for file in files()
        for line, text in docstrings(ast.parse(file.read_text()))
        for problem in problems(text)
    ]
    print("\n".join(found) or "The docstrings are in plain English.")
    return 1 if found else 0


def files() -> Iterator[Path]:
    left_out = [ROOT / folder for folder in NOT_YET]
    for pattern in CHECKED:
        for folder in sorted(ROOT.glob(pattern)):
            if folder not in left_out:
                yield from sorted(folder.rglob("*.py"))


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields line and text of each string that stands as a statement of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def problems(text: str) -> Iterator[str]:
    """Yields what is wrong with one docstring."""
    if begin := _BARE.match(text):
        yield f"begins with {begin[0]!r}: write a full sentence with a subject and a verb"
    for sentence in sentences(text):
        words = len(sentence.split())
        if words > MOST_WORDS:
            yield f"{words} words in one sentence, and {MOST_WORDS} are the most: {' '.join(sentence.split())[:60]} …"


def sentences(text: str) -> list[str]:
    """Splits a docstring at the ends of sentences, at colons, and between paragraphs and entries of lists."""
    first, _, rest = text.partition("\n")
    lines = rest.split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    shown = [first, *("" if _ROW.search(line[margin:]) else line[margin:] for line in lines)]
    return [part for part in _END.split("\n".join(shown)) if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
