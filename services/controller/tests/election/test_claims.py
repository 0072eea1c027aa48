"""Whose the Models of a namespace are. The API server is on paper."""

from __future__ import annotations

import copy
from typing import Any

from cloudach_controller.election.claims import LEASE, Claims
from cloudach_controller.settings import parse
from cloudach_kube.errors import Conflict, KubeError, NotFound, Refused, Unreachable
from cloudach_kube.kinds import Kind


class Paper:
    def __init__(self) -> None:
        self.leases: dict[str, dict[str, Any]] = {}
        self.asked = 0
        self.fails: KubeError | None = None

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        self._ask()
        if namespace not in self.leases:
            raise NotFound(404, name)
        return copy.deepcopy(self.leases[namespace])

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        self._ask()
        assert body["metadata"]["name"] == LEASE
        if namespace in self.leases:
            raise Conflict(409, "there")
        self.leases[namespace] = copy.deepcopy(body)
        return body

    async def replace(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self._ask()
        self.leases[namespace] = copy.deepcopy(body)
        return body

    def _ask(self) -> None:
        self.asked += 1
        if self.fails is not None:
            raise self.fails


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def claims(paper: Paper, release: str, clock: Clock, won: list[str] | None = None, more: str = "") -> Claims:
    election = parse(f"leader_election: {{namespace: {release}{more}}}").leader_election
    return Claims(paper, election, (won if won is not None else []).append, clock)


async def test_a_second_release_leaves_the_models_alone_and_says_so() -> None:
    paper, clock = Paper(), Clock()
    first, second = claims(paper, "one", clock), claims(paper, "two", clock)
    assert await first.is_ours("llm") is True
    assert await second.is_ours("llm") is False
    assert second.notes == "namespace llm is left alone: the controller one/cloudach-controller works on its Models"
    assert first.notes == ""
    asked = paper.asked
    assert [await first.is_ours("llm"), await second.is_ours("llm")] == [True, False]
    assert paper.asked == asked, "a look costs nothing"


async def test_another_leader_of_the_same_release_goes_on_at_once() -> None:
    paper, clock = Paper(), Clock()
    assert await claims(paper, "one", clock).is_ours("llm") is True
    assert await claims(paper, "one", clock).is_ours("llm") is True


async def test_a_release_that_is_gone_locks_nobody_out() -> None:
    paper, clock, won = Paper(), Clock(), list[str]()
    await claims(paper, "one", clock).is_ours("llm")
    second = claims(paper, "two", clock, won)
    assert await second.is_ours("llm") is False
    clock.now += 119
    await second._try("llm")
    assert await second.is_ours("llm") is False
    clock.now += 2
    await second._try("llm")
    assert await second.is_ours("llm") is True
    assert won == ["llm"]
    # The first one comes back.
    first = claims(paper, "one", clock)
    assert await first.is_ours("llm") is False


async def test_one_that_renews_stays() -> None:
    paper, clock = Paper(), Clock()
    first, second = claims(paper, "one", clock), claims(paper, "two", clock)
    await first.is_ours("llm")
    await second.is_ours("llm")
    for _ in range(10):
        clock.now += 30
        await first._try("llm")
        await second._try("llm")
        assert [await first.is_ours("llm"), await second.is_ours("llm")] == [True, False]


async def test_without_the_right_all_goes_on_as_before() -> None:
    paper = Paper()
    paper.fails = Refused(403, "forbidden")
    one = claims(paper, "one", Clock())
    assert await one.is_ours("llm") is True
    assert one.notes == ""


async def test_an_api_server_that_is_away_changes_nothing() -> None:
    paper = Paper()
    paper.fails = Unreachable(0, "away")
    one = claims(paper, "one", Clock())
    assert await one.is_ours("llm") is None
    paper.fails = None
    assert await one.is_ours("llm") is True
    paper.fails = Unreachable(0, "away")
    await one._try("llm")
    assert await one.is_ours("llm") is True


async def test_a_controller_without_a_lease_asks_nobody() -> None:
    paper = Paper()
    assert await claims(paper, "one", Clock(), more=", enabled: false").is_ours("llm") is True
    assert paper.asked == 0


async def test_a_webhook_that_fails_for_leases_locks_no_namespace_for_long() -> None:
    """What is known to be another's stays so."""
    paper, clock = Paper(), Clock()
    first, second = claims(paper, "one", clock), claims(paper, "two", clock)
    assert await first.is_ours("theirs") is True
    assert await second.is_ours("theirs") is False
    paper.fails = Unreachable(500, "failed calling webhook")
    for now, known in ((0.0, None), (14.0, None), (15.0, True)):
        clock.now = now
        assert await second.is_ours("llm") is known
        await second._try("theirs")
        assert await second.is_ours("theirs") is False
    paper.fails = Unreachable(0, "the API server does not answer")
    for now in (20.0, 90.0):
        clock.now = now
        assert await second.is_ours("new") is None
