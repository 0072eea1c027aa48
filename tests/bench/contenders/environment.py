"""Environments of what only the bench needs; scripts/bench-env.sh installs them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.processes import ROOT


class Environment:
    """A Python environment in the repository's root, of the packages that environments/NAME.txt pins."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._folder = ROOT / f".venv-bench-{name}"

    @property
    def ready(self) -> bool:
        """False also after an install that did not end well."""
        return (self._folder / ".installed").exists()

    def program(self, name: str) -> Path:
        return self._folder / "bin" / name

    def missing(self) -> str:
        """Why it cannot be used; empty if it can."""
        return "" if self.ready else f"not installed: `scripts/bench-env.sh {self.name}` installs it"

    def pinned(self, package: str) -> str:
        """The version that is pinned."""
        pins = (Path(__file__).parent.parent / "environments" / f"{self.name}.txt").read_text()
        found = re.search(rf"^{re.escape(package)}==(\S+)", pins, re.MULTILINE)
        return found[1] if found else ""
