"""Simulators that are struck, killed and started again, each on a port of its own for good."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.ports import free_port
from tests.support.stack import Simulator, start_sim

MODEL = "sim"


class Replica:
    """A simulator that can be away for a while. `stats` and the like are those of its present life."""

    def __init__(self, **options: Any) -> None:
        self._options = {"model": MODEL, **options, "port": free_port()}
        self.sim = self._started()

    @property
    def url(self) -> str:
        return self.sim.url

    def _started(self) -> Simulator:
        return start_sim(**self._options)

    def strike(self, fault: str) -> int:
        """This cut, now, for all that runs here and has told a token: how many these are."""
        return self.sim.strike(fault)

    def arm(self, fault: str, *, user: str) -> None:
        """This fault for each request whose field `user` is this."""
        httpx.post(f"{self.url}/sim/faults", json={"fault": fault, "user": user}, timeout=30).raise_for_status()

    def served(self) -> list[dict[str, Any]]:
        """The simulator's own account of each request, in their order."""
        told: list[dict[str, Any]] = httpx.get(f"{self.url}/sim/requests?limit=100000", timeout=30).json()["data"]
        return told[::-1]

    def killed(self, *, away_s: float) -> None:
        """SIGKILL, and a successor."""
        self.sim.kill()
        self.sim.stop()
        time.sleep(away_s)
        self.sim = self._started()

    def replaced(self) -> int:
        """SIGTERM, and a successor once it has drained; its exit status."""
        status = self.sim.stop(patience_s=60)
        self.sim = self._started()
        return status


@contextlib.contextmanager
def replicas(count: int, **options: Any) -> Iterator[list[Replica]]:
    """So many, of the options of `cloudach-sim`."""
    started: list[Replica] = []
    try:
        for _ in range(count):
            started.append(Replica(**options))
        yield started
    finally:
        for replica in started:
            replica.sim.stop()
