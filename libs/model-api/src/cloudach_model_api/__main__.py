"""`python -m cloudach_model_api write|check [--root DIR]` writes or checks the files that are made from the types."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from .generated import crd_files, with_fields


def files(root: Path) -> Iterator[tuple[Path, str]]:
    """Yields each file with what it should hold. The text of docs/models.md around its tables stays.

    Raises OSError if docs/models.md does not exist.
    """
    for path, text in crd_files():
        yield root / path, text
    docs = root / "docs/models.md"
    yield docs, with_fields(docs.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cloudach_model_api", description=__doc__)
    parser.add_argument("action", choices=("write", "check"))
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: here)")
    asked = parser.parse_args()
    stale = [(path, text) for path, text in files(asked.root) if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if asked.action == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        print(f"{path}: {'written' if asked.action == 'write' else 'out of date, run `write`'}")
    return 1 if stale and asked.action == "check" else 0


if __name__ == "__main__":
    sys.exit(main())
