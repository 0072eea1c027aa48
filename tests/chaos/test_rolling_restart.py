"""Two gateways and four replicas are replaced one after the other under load: nobody notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chaos.asks import greedy
from tests.support.balancer import balancer
from tests.support.crowd import Crowd
from tests.support.observed import failovers, in_short, records, usage
from tests.support.ports import free_port
from tests.support.replicas import Replica, replicas
from tests.support.stack import Gateway, create_key, served_by, start_gateway
from tests.support.valkey import valkey
from tests.support.waiting import until

PER_S = 12
RATE = 25  # tokens a second: a stream takes 2 to 4 s
REPLICA_DRAIN_S = 1.0


class Fleet:
    """Gateways on fixed ports, those that have ended included."""

    def __init__(self, ports: list[int], config: dict[str, Any]) -> None:
        self.ports = ports
        self._config = config
        self.present = [self._start(port) for port in ports]
        self.ended: list[Gateway] = []

    def _start(self, port: int) -> Gateway:
        return start_gateway({**self._config, "listen": {"port": port}})

    def replace(self, number: int) -> int:
        """SIGTERM, and a successor once it has drained; its exit status."""
        status = self.present[number].stop(patience_s=60)
        self.ended.append(self.present[number])
        self.present[number] = self._start(self.ports[number])
        return status

    @property
    def log(self) -> list[dict[str, Any]]:
        """Of all generations that were let in."""
        lines = [line for gateway in (*self.ended, *self.present) for line in gateway.requests]
        return [line for line in lines if line.get("outcome")]

    def shares(self) -> list[int]:
        """How many generations each has had that have ended; those of the ones that have ended come first."""
        return [sum("outcome" in line for line in gateway.requests) for gateway in (*self.ended, *self.present)]

    def stop(self) -> None:
        for gateway in self.present:
            gateway.stop()


@pytest.fixture
def engines() -> Iterator[list[Replica]]:
    with replicas(4, rate=RATE, spread=True, drain_s=REPLICA_DRAIN_S) as running:
        yield running


@pytest.fixture
def fleet(engines: list[Replica]) -> Iterator[Fleet]:
    with valkey() as redis:
        running = Fleet(
            [free_port(), free_port()],
            {
                "models": [served_by(*(engine.sim for engine in engines), max_model_len=32768)],
                "redis": {"url": redis.url},
                "timeouts": {"drain_s": 30},
            },
        )
        try:
            yield running
        finally:
            running.stop()


def test_nobody_notices(engines: list[Replica], fleet: Fleet, say: Callable[[str], None]) -> None:
    asks, undisturbed = greedy(300, tokens=(45, 90))
    key = create_key(fleet.present[0])
    statuses = []
    with balancer(free_port(), fleet.ports) as url, Crowd(f"{url}/v1", key, asks, per_s=PER_S, repeat=True) as crowd:
        until(lambda: min(fleet.shares()) > 0)
        for step in ("replica 0", "gateway 0", "replica 1", "replica 2", "gateway 1", "replica 3"):
            what, number = step.split()
            replace = fleet.replace if what == "gateway" else lambda n: engines[n].replaced()
            statuses.append(replace(int(number)))
        until(lambda: min(fleet.shares()) > 0)
        crowd.enough()
        answers = crowd.answers()
    assert statuses == [0] * 6
    assert [answer.error for answer in answers if answer.error] == []
    assert [answer.same() for answer in answers] == [undisturbed[answer.number % 300].same() for answer in answers]
    assert {len(answer.heads) for answer in answers} == {1}

    until(lambda: len(fleet.log) == len(answers))
    assert {entry["outcome"] for entry in fleet.log} == {"finished"}
    found = failovers(fleet.log)
    assert found, "the drains of the replicas have cut some streams"
    until(lambda: len(records(fleet.present[0], "tests")) == len(answers))
    kept = records(fleet.present[0], "tests")
    assert sum(record["failovers"] for record in kept) == len(found)
    assert "agree" in usage(fleet.present[0], "reconcile")
    shares = fleet.shares()
    assert min(shares) > 0, "each gateway, each successor had its part"
    say(f"{len(answers)} requests, {shares} by the gateways and their successors, {in_short(found)}")
