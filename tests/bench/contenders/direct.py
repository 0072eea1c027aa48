"""No proxy at all: what the client and the engine cost by themselves."""

from __future__ import annotations

from tests.bench.client import Target

from .base import Contender


class Direct(Contender):
    name = "direct"
    title = "direct"

    def start(self) -> Target:
        return Target(self.engine.url, self.engine.model)
