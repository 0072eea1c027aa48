"""Another commit of ours, side by side with this one: it tells what a change costs.

BEFORE=DIR make bench ONLY=direct,haproxy,before,cloudach     # DIR: a checkout in which `make setup` ran
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.stack import Gateway

from .cloudach import Cloudach

CHECKOUT = Path(os.environ.get("BEFORE", "")).absolute() if os.environ.get("BEFORE") else None


class _Gateway(Gateway):
    def __init__(self, config: Mapping[str, Any]) -> None:
        assert CHECKOUT is not None
        self.program = (CHECKOUT / ".venv" / "bin" / "cloudach-gateway",)
        super().__init__(config)


class Before(Cloudach):
    name = "before"
    title = "Cloudach before"

    @classmethod
    def missing(cls) -> str:
        if CHECKOUT is None:
            return "BEFORE=DIR names no checkout"
        program = CHECKOUT / ".venv" / "bin" / "cloudach-gateway"
        return "" if program.is_file() else f"BEFORE: there is no {program}; run `make setup` there"

    def version(self) -> str:
        command = ["git", "-C", str(CHECKOUT), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=10).stdout.strip()

    def _start_gateway(self, config: Mapping[str, Any]) -> Gateway:
        return _Gateway(config)
