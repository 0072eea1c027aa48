"""The list-and-watch, against an API server on paper that forgets, fails and comes back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cloudach_kube.client import Event, Object
from cloudach_kube.errors import Gone, KubeError, Refused, Unreachable, is_unseen
from cloudach_kube.kinds import PODS, Kind
from cloudach_kube.reflector import Reflector

pytestmark = pytest.mark.usefixtures("virtual_time")


def obj(name: str, version: int) -> Object:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def now() -> float:
    return asyncio.get_running_loop().time()


class Paper:
    """`script` has what each watch does: events, an error that it raises, or seconds that it waits.

    A watch without a script stands until the server ends it. `objects` are what a list finds, or an error.
    """

    def __init__(self, *script: list[Event | Exception | float]) -> None:
        self.objects: list[Object] | Exception = [obj("a", 1)]
        self.script = list(script)
        self.always: list[Event | Exception | float] | None = None
        self.lists: list[float] = []
        self.watches: list[tuple[float, str]] = []
        self.asked_s: list[float] = []
        self.refuses: Exception | None = None  # what a watch gets instead of being begun

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[Object], str]:
        await asyncio.sleep(0.01)
        self.lists.append(now())
        if isinstance(self.objects, Exception):
            raise self.objects
        return self.objects, "10"

    @asynccontextmanager
    async def watch(
        self, kind: Kind, namespace: str | None, since: str, *, seconds: float, selector: str = "", name: str = ""
    ) -> AsyncIterator[AsyncIterator[Event]]:
        await asyncio.sleep(0.01)
        self.watches.append((now(), since))
        self.asked_s.append(seconds)
        if self.refuses is not None:
            raise self.refuses
        yield self._events(seconds)

    async def _events(self, seconds: float) -> AsyncIterator[Event]:
        steps = self.script.pop(0) if self.script else self.always
        for step in [seconds] if steps is None else steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, tuple):
                yield step
            else:
                await asyncio.sleep(min(step, seconds))

    @property
    def since(self) -> list[str]:
        return [version for _, version in self.watches]


class Told:
    def __init__(self) -> None:
        self.names: set[str] = set()
        self.lists = 0
        self.problems: list[KubeError] = []
        self.touches = 0
        self.bug: Exception | None = None

    def listed(self, namespace: str | None, objects: list[Object]) -> None:
        self.lists += 1
        self.names = {one["metadata"]["name"] for one in objects}

    def changed(self, namespace: str | None, obj: Object) -> None:
        if self.bug is not None:
            bug, self.bug = self.bug, None
            raise bug
        self.names.add(obj["metadata"]["name"])

    def deleted(self, namespace: str | None, obj: Object) -> None:
        self.names.discard(obj["metadata"]["name"])

    def in_touch(self, namespace: str | None) -> None:
        self.touches += 1

    def out_of_touch(self, namespace: str | None, problem: KubeError) -> None:
        self.problems.append(problem)


async def follow(paper: Paper, seconds: float, **options: Any) -> Told:
    told = Told()
    await _follow(paper, told, seconds, **options)
    return told


async def _follow(paper: Paper, told: Told, seconds: float, **options: Any) -> None:
    task = asyncio.create_task(Reflector(paper, PODS, "ns", told, **options).run())
    await asyncio.sleep(seconds)
    assert not task.done()
    task.cancel()


async def test_events_change_the_mirror_and_move_the_version_on() -> None:
    bookmark = ("BOOKMARK", {"metadata": {"resourceVersion": "20"}})
    paper = Paper([("ADDED", obj("b", 11)), ("DELETED", obj("a", 12)), bookmark, 60.0])
    told = await follow(paper, 400)
    assert told.names == {"b"}
    assert paper.since[:2] == ["10", "20"], "no list in between"
    assert (len(paper.lists), told.problems) == (1, [])


@pytest.mark.parametrize("gone", ["as it begins", "while it stands"])
async def test_a_server_that_forgets_everything_at_once_is_not_stormed(gone: str) -> None:
    paper, error = Paper(), Gone(410, "too old")
    if gone == "as it begins":
        paper.refuses = error
    else:
        paper.always = [("MODIFIED", obj("a", 11)), error]
    told = await follow(paper, 600)
    assert 40 < len(paper.lists) < 100
    assert told.problems == [], "what it lists is true"
    assert told.names == {"a"}


async def test_a_version_that_ran_out_in_a_quiet_hour_is_listed_anew_within_a_second() -> None:
    paper = Paper([3600.0], [Gone(410, "too old")])
    await follow(paper, 310)
    assert len(paper.lists) == 2
    assert 0.2 < paper.lists[1] - paper.watches[1][0] < 1


async def test_a_watch_that_stood_makes_the_next_pause_a_short_one_again() -> None:
    away = Unreachable(0, "away")
    fails: list[Event | Exception | float] = [away]
    stood: list[Event | Exception | float] = [30.0, away]
    paper = Paper(fails, fails, fails, fails, fails, stood, fails)
    await follow(paper, 120, chance=lambda low, high: high)
    began = [at for at, _ in paper.watches]
    pauses = [round(later - earlier, 1) for earlier, later in itertools.pairwise(began)]
    assert pauses[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 30.5, 1.0]


async def test_no_two_have_the_same_pauses() -> None:
    times = []
    for _ in range(2):
        paper = Paper()
        paper.always = [Gone(410, "too old")]
        start = now()
        await follow(paper, 60)
        times.append([at - start for at in paper.lists[1:5]])
    assert not set(times[0]) & set(times[1])


async def test_where_there_was_no_answer_the_watch_goes_on_where_it_was() -> None:
    """An API server that is started anew is not asked for everything by everybody."""
    paper = Paper([("ADDED", obj("b", 11)), 30.0, Unreachable(0, "away")])
    told = await follow(paper, 60)
    assert paper.since == ["10", "11"]
    assert (len(paper.lists), len(told.problems), told.names) == (1, 1, {"a", "b"})
    assert told.touches == 3, "twice at the begin of a watch, and with an event"


async def test_after_an_error_that_the_server_told_everything_is_listed_anew() -> None:
    paper = Paper([30.0, Unreachable(500, "too large resource version")])
    told = await follow(paper, 60)
    assert (paper.since, len(paper.lists)) == (["10", "10"], 2)
    assert [problem.status for problem in told.problems] == [500]


@pytest.mark.parametrize(
    "refusal", [Refused(403, "no right"), Gone(410, "the page is too old"), Unreachable(0, "away")]
)
async def test_a_list_that_is_refused_is_told_and_asked_for_later_and_later(refusal: KubeError) -> None:
    paper = Paper()
    paper.objects = refusal
    told = await follow(paper, 600)
    assert 40 < len(paper.lists) < 100
    assert told.problems[0] is refusal
    assert (told.lists, paper.watches) == (0, [])
    assert is_unseen(refusal) is (refusal.status == 403)


@pytest.mark.parametrize("fault", ["never begins", "sends what nobody can read", "ends at once"])
async def test_when_watches_fail_again_and_again_the_mirror_lives_from_lists(fault: str) -> None:
    """A proxy may let lists through and no watch, and an event that cannot be read is sent again to each new watch."""
    paper, told = Paper(), Told()
    if fault == "never begins":
        paper.refuses = Unreachable(0, "no connection")
    else:
        paper.always = [] if fault == "ends at once" else [Unreachable(0, "an event of more than 16777216 bytes")]
    following = asyncio.create_task(_follow(paper, told, 600))
    await asyncio.sleep(60)
    paper.objects = [obj("b", 11)]
    await asyncio.sleep(16)
    assert told.names == {"b"}, "within the longest pause"
    await following
    assert 40 < len(paper.watches) < 100
    assert 40 < len(paper.lists) <= len(paper.watches), "never more than one list a pause"


async def test_watches_that_a_proxy_cuts_off_while_they_bring_nothing_are_made_up_for_by_lists() -> None:
    paper, told = Paper(), Told()
    paper.always = [60.0, Unreachable(0, "the connection was cut off")]
    following = asyncio.create_task(_follow(paper, told, 600))
    await asyncio.sleep(30)
    paper.objects = [obj("b", 11)]
    await following
    assert told.names == {"b"}
    assert 6 <= len(paper.lists) <= 9


async def test_quiet_watches_that_end_in_order_need_no_lists() -> None:
    paper = Paper()
    paper.always = [5.0]
    told = await follow(paper, 600)
    assert len(paper.watches) > 100
    assert (len(paper.lists), told.problems) == (1, [])


async def test_the_mirror_hears_that_watches_fail_though_lists_stand_in_for_them() -> None:
    class Latest(Told):
        def listed(self, namespace: str | None, objects: list[Object]) -> None:
            super().listed(namespace, objects)
            self.heard = "listed"

        def out_of_touch(self, namespace: str | None, problem: KubeError) -> None:
            super().out_of_touch(namespace, problem)
            self.heard = "out of touch"

    paper, told = Paper(), Latest()
    paper.refuses = Unreachable(0, "no connection")
    await _follow(paper, told, 60)
    assert told.lists > 3
    assert told.heard == "out of touch"
    assert {str(problem) for problem in told.problems} == {"no connection"}


async def test_after_an_outage_nobody_lists_who_can_go_on_with_a_watch() -> None:
    """All of an API server's clients come back at once. It must not be asked for everything by everybody."""
    paper, told = Paper([5.0, Unreachable(0, "away")], [400.0]), Told()
    following = asyncio.create_task(_follow(paper, told, 600))
    await asyncio.sleep(2)
    there = paper.objects
    paper.objects = paper.refuses = Unreachable(0, "away")
    await asyncio.sleep(120)
    before = len(paper.lists)
    paper.objects, paper.refuses = there, None
    await following
    assert len(paper.lists) == before
    assert told.lists == 1
    assert set(paper.since) == {"10"}


async def test_a_watch_that_brought_something_is_no_failure() -> None:
    paper = Paper()
    paper.always = [("MODIFIED", obj("a", 11)), Unreachable(0, "away")]
    told = await follow(paper, 600)
    assert (len(paper.lists), told.lists) == (1, 1)


async def test_watches_end_at_different_times_and_before_proxies_end_them() -> None:
    paper = Paper()
    await follow(paper, 3600)
    assert all(240 <= seconds <= 300 for seconds in paper.asked_s)
    assert len(set(paper.asked_s)) > 5
    assert len(paper.lists) == 1


async def test_everything_is_listed_anew_as_often_as_is_wished() -> None:
    paper = Paper()
    told = await follow(paper, 3600, relist_s=600)
    assert 6 <= told.lists <= 8
    assert all(480 <= b - a <= 601 for a, b in itertools.pairwise(paper.lists))


async def test_a_mistake_of_the_mirror_is_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    paper, told = Paper([("ADDED", obj("b", 11))]), Told()
    told.bug = KeyError("metadata")
    await _follow(paper, told, 60)
    assert told.lists == 2
    assert [str(problem) for problem in told.problems] == ["KeyError('metadata')"]
    assert "cannot be followed" in caplog.text


async def test_of_which_objects() -> None:
    asked: list[dict[str, str]] = []

    class Noting(Paper):
        async def list(
            self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
        ) -> tuple[list[Object], str]:
            asked.append({"kind": kind.plural, "namespace": str(namespace), "selector": selector, "name": name})
            return await super().list(kind, namespace)

    await follow(Noting(), 1, selector="a=b", name="c")
    assert asked == [{"kind": "pods", "namespace": "ns", "selector": "a=b", "name": "c"}]
