"""A real Valkey as the chart sets up the store of Ray's state."""

from __future__ import annotations

from pathlib import Path

from .valkey import Valkey

ADMIN = "a" * 32


class RayStore(Valkey):
    """Its users stand in a file, which it keeps over `kill` and `start` as it keeps its data."""

    def __init__(self, folder: Path) -> None:
        self.acl = folder / "users.acl"
        self.acl.write_text(f"user default on >{ADMIN} ~* &* +@all\n")
        super().__init__(folder, "--aclfile", self.acl, password=ADMIN)
