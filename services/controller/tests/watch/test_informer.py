"""The informer, against an API server on paper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cloudach_controller.kinds import MODELS
from cloudach_controller.watch.informer import Informer
from cloudach_kube.client import Event
from cloudach_kube.errors import Gone, KubeError, NotFound, Unreachable
from cloudach_kube.kinds import Kind

pytestmark = pytest.mark.usefixtures("virtual_time")


def obj(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": name, "resourceVersion": str(version)}}


class PaperWatch:
    """Lists and watches, one after another; an exception in a watch is raised there."""

    def __init__(self, *turns: tuple[list[dict[str, Any]], list[Any]]) -> None:
        self._turns = list(turns)
        self._events: list[Any] = []
        self.over = asyncio.Event()
        self.since: list[str] = []

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        if not self._turns:
            self.over.set()
            await asyncio.Event().wait()
        objects, self._events = self._turns.pop(0)
        return objects, "10"

    @asynccontextmanager
    async def watch(
        self, kind: Kind, namespace: str | None, since: str, *, seconds: float, selector: str = "", name: str = ""
    ) -> AsyncIterator[AsyncIterator[Event]]:
        yield self._told(kind, namespace, since)

    async def _told(self, kind: Kind, namespace: str | None, since: str) -> AsyncIterator[Event]:
        self.since.append(since)
        while self._events:
            event = self._events.pop(0)
            if event is None:
                return  # the server ends the watch, as it does every few minutes
            if isinstance(event, Exception):
                raise event
            yield event
        raise Gone(410, "too old")


def team(one: dict[str, Any]) -> tuple[str, str] | None:
    name = one["metadata"].get("labels", {}).get("team")
    return ("n", name) if name else None


async def informed(source: PaperWatch, **which: Any) -> tuple[Informer, list[str]]:
    changed: list[str] = []
    informer = Informer(source, MODELS, "n", lambda key, _: changed.append(key[1]), group=team, **which)
    task = asyncio.create_task(informer.run())
    await asyncio.wait_for(source.over.wait(), 20)
    task.cancel()
    return informer, changed


async def test_list_then_watch() -> None:
    events = [("ADDED", obj("b", 11)), ("MODIFIED", obj("a", 12)), ("DELETED", obj("b", 13)), ("BOOKMARK", obj("", 20))]
    source = PaperWatch(([obj("a", 1)], [*events, None, ("MODIFIED", obj("a", 21))]))
    informer, changed = await informed(source)
    assert changed == ["a", "b", "a", "b", "a"]
    assert set(informer.objects) == {("n", "a")}
    assert source.since == ["10", "20", "21"][: len(source.since)]


async def test_what_was_missed_meanwhile_is_told_after_the_next_list() -> None:
    source = PaperWatch(([obj("a", 1), obj("b", 1), obj("c", 1)], []), ([obj("a", 1), obj("b", 2)], []))
    informer, changed = await informed(source)
    assert changed == ["a", "b", "c", "b", "c"]
    assert set(informer.objects) == {("n", "a"), ("n", "b")}


async def test_a_lost_server_is_asked_again_and_what_was_known_stays() -> None:
    source = PaperWatch(([obj("a", 1)], [Unreachable(0, "away")]), ([obj("a", 1)], []))
    informer, changed = await informed(source)
    assert changed == ["a"]
    assert set(informer.objects) == {("n", "a")}


async def test_objects_are_held_by_their_group() -> None:
    def of(name: str, version: int, team: str | None) -> dict[str, Any]:
        one = obj(name, version)
        one["metadata"]["labels"] = {"team": team} if team else {}
        return one

    events = [("MODIFIED", of("a", 11, "blue")), ("MODIFIED", of("b", 12, None)), ("DELETED", of("c", 13, "red"))]
    first = [of("a", 1, "red"), of("b", 1, "red"), of("c", 1, "red"), of("d", 1, None)]
    informer, _ = await informed(PaperWatch((first, [*events, ("ADDED", of("e", 14, "blue")), None])))
    assert {group: set(found) for group, found in informer.groups.items()} == {("n", "blue"): {("n", "a"), ("n", "e")}}
    informer, _ = await informed(PaperWatch((first, events), ([of("b", 20, "red")], [])))
    assert {group: set(found) for group, found in informer.groups.items()} == {("n", "red"): {("n", "b")}}


async def test_large_specs_are_not_kept_by_group_either() -> None:
    def of(name: str, version: int) -> dict[str, Any]:
        one = obj(name, version)
        return one | {"metadata": one["metadata"] | {"labels": {"team": "red"}}, "spec": {"large": "x" * 1000}}

    source = PaperWatch(([of("a", 1)], [("ADDED", of("b", 11)), ("MODIFIED", of("a", 12)), None]))
    informer, _ = await informed(source, metadata_only=True)
    assert {key: set(one) for key, one in informer.groups["n", "red"].items()} == {
        ("n", "a"): {"metadata"},
        ("n", "b"): {"metadata"},
    }


async def test_a_kind_that_is_missing_is_missing_while_the_server_is_away() -> None:
    """Nothing is known of its objects. Whoever takes them for deleted would make them anew."""

    class Paper(PaperWatch):
        problem: KubeError | None = NotFound(404, "no such kind")

        async def list(
            self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
        ) -> tuple[list[dict[str, Any]], str]:
            if self.problem is not None:
                raise self.problem
            return [obj("a", 1)], "10"

    source = Paper()
    informer = Informer(source, MODELS, "n", lambda key, _: None)
    task = asyncio.create_task(informer.run())
    await asyncio.sleep(1)
    assert (informer.missing, informer.synced.is_set(), informer.connected) == (True, True, False)
    source.problem = Unreachable(0, "away")
    await asyncio.sleep(30)
    assert (informer.missing, informer.synced.is_set(), informer.connected) == (True, True, False)
    source.problem = None
    await asyncio.sleep(30)
    task.cancel()
    assert (informer.missing, informer.connected, set(informer.objects)) == (False, True, {("n", "a")})


async def test_a_watch_that_goes_on_is_told_of() -> None:
    turned: list[bool] = []
    source = PaperWatch(([obj("a", 1)], [Unreachable(0, "away"), None, ("MODIFIED", obj("a", 11))]), ([], []))
    informer = Informer(source, MODELS, "n", lambda key, _: None, turned=lambda: turned.append(informer.connected))
    task = asyncio.create_task(informer.run())
    await asyncio.wait_for(source.over.wait(), 60)
    task.cancel()
    assert turned[:3] == [True, False, True]


class Forgetful:
    """An API server that takes 10 ms for an answer, and whose watches have all run out, however new their version."""

    def __init__(self) -> None:
        self.lists = 0

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        await asyncio.sleep(0.01)
        self.lists += 1
        return [obj("a", 1)], "10"

    @asynccontextmanager
    async def watch(
        self, kind: Kind, namespace: str | None, since: str, *, seconds: float, selector: str = "", name: str = ""
    ) -> AsyncIterator[AsyncIterator[Event]]:
        yield self._told(kind, namespace, since)

    async def _told(self, kind: Kind, namespace: str | None, since: str) -> AsyncIterator[Event]:
        await asyncio.sleep(0.01)
        if since:
            raise Gone(410, "too old resource version")
        yield "ADDED", obj("a", 1)


async def test_a_server_whose_watches_have_all_run_out_is_not_stormed_with_lists() -> None:
    """Each list reads every object of the kind from etcd, and all the controller's informers ask at the same time."""
    server = Forgetful()
    informer = Informer(server, MODELS, "n", lambda key, _: None)
    task = asyncio.create_task(informer.run())
    await asyncio.sleep(600)
    task.cancel()
    assert informer.synced.is_set()
    assert 10 < server.lists < 100, "it goes on being asked, and not more than every few seconds"
