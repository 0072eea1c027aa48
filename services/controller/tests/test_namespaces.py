"""Several watched namespaces, of which some cannot be read. The API server is on paper."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import pytest
from cloudach_controller import metrics
from cloudach_controller.act.endings import Endings
from cloudach_controller.act.events import Events
from cloudach_controller.act.own_tokens import OwnTokens
from cloudach_controller.manager import Manager
from cloudach_controller.observe.dashboard import Dashboard
from cloudach_controller.observe.observer import Observer
from cloudach_controller.settings import parse
from cloudach_kube.client import Event, KubeClient
from cloudach_kube.errors import Conflict, NotFound, Refused, Unreachable
from cloudach_kube.kinds import Kind

pytestmark = pytest.mark.usefixtures("virtual_time")

TWO = "kubernetes: {namespaces: [llm, other]}\nray: {token_auth: false}\ninference: {engine_keys: false}"


class Paper:
    """A Model in each namespace. `refused`: what cannot be listed, by namespace and kind. `slow`: a namespace whose
    lists take until `go`. `applied`: the RayServices that were."""

    def __init__(self) -> None:
        self.refused: set[tuple[str, str]] = set()
        self.slow = ""
        self.go = asyncio.Event()
        self.applied: list[str] = []
        self.rays: dict[str, dict[str, Any]] = {}
        self.names = {"llm": "one", "other": "one"}
        self.broken = asyncio.Event()

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        assert namespace is not None
        await asyncio.sleep(0.01)
        if (namespace, kind.plural) in self.refused:
            raise Refused(403, f"{kind.plural} is forbidden in {namespace}")
        if namespace == self.slow:
            await self.go.wait()
        if kind.plural == "models":
            return [self._model(namespace)], "1"
        return ([self.rays[namespace]] if kind.plural == "rayservices" and namespace in self.rays else []), "1"

    def _model(self, namespace: str) -> dict[str, Any]:
        made = {"llm": "2026-01-02T00:00:00Z", "other": "2026-01-01T00:00:00Z"}[namespace]
        name = self.names[namespace]
        metadata = {"name": name, "namespace": namespace, "uid": namespace, "generation": 1, "resourceVersion": "1"}
        metadata |= {"creationTimestamp": made, "finalizers": ["cloudach.dev/drain"]}
        return {"metadata": metadata, "spec": {"source": {"simulator": {}}}}

    @asynccontextmanager
    async def watch(
        self, kind: Kind, namespace: str | None, since: str, *, seconds: float, selector: str = "", name: str = ""
    ) -> AsyncIterator[AsyncIterator[Event]]:
        yield self._told(kind, namespace, since)

    async def _told(self, kind: Kind, namespace: str | None, since: str) -> AsyncIterator[Event]:
        assert namespace is not None
        while not self.broken.is_set():
            await asyncio.sleep(0.1)
            if kind.plural == "rayservices" and namespace in self.rays:
                yield "MODIFIED", self.rays[namespace]
        raise Unreachable(0, "the watch broke off")

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        raise NotFound(404, name)

    async def apply(self, kind: Kind, namespace: str, name: str, body: dict[str, Any], sub: str = "") -> dict[str, Any]:
        if kind.plural == "rayservices":
            self.applied.append(namespace)
            version = {"resourceVersion": str(len(self.applied))}
            self.rays[namespace] = copy.deepcopy(body) | {"metadata": body["metadata"] | version}
        return copy.deepcopy(body)

    async def merge(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return body

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        return body


@contextmanager
def managed(paper: Paper) -> Iterator[Manager]:
    settings, api = parse(TWO), cast(KubeClient, paper)
    tokens = OwnTokens(api, settings.ray)
    observer = Observer(api, cast(Dashboard, None), tokens, settings)
    manager = Manager(api, observer, Events(api, instance="i"), tokens, settings)
    running = asyncio.create_task(manager.run())
    try:
        yield manager
    finally:
        running.cancel()


def readable(namespace: str) -> float:
    return metrics.READABLE.labels(namespace)._value.get()


async def test_a_namespace_that_cannot_be_read_stops_no_other_and_is_taken_up_when_it_can() -> None:
    paper = Paper()
    paper.names["other"] = "two"
    paper.refused = {("other", "rayservices")}
    with managed(paper) as manager:
        await asyncio.sleep(2)
        assert paper.applied == ["llm"]
        assert manager.unready == ""
        assert manager.notes == "namespace other cannot be read: rayservices is forbidden in other"
        assert (readable("llm"), readable("other")) == (1, 0)
        paper.refused.clear()
        await asyncio.sleep(30)
        assert paper.applied == ["llm", "other"]
        assert (manager.notes, readable("other")) == ("", 1)


async def test_without_any_namespace_that_can_be_read_the_controller_is_not_ready() -> None:
    paper = Paper()
    paper.refused = {("llm", "pods"), ("other", "models")}
    with managed(paper) as manager:
        assert manager.unready == "the watches of 2 namespaces have not begun"
        await asyncio.sleep(2)
        lines = manager.unready.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"namespace {each} cannot be read" for each in ("llm", "other")]


async def test_a_ray_service_that_is_not_seen_is_not_taken_for_deleted() -> None:
    """Rights go while it runs, and come back kind by kind."""
    paper = Paper()
    paper.names["other"] = "two"
    with managed(paper):
        await asyncio.sleep(2)
        assert sorted(paper.applied) == ["llm", "other"]
        paper.applied.clear()
        paper.refused = {("other", kind) for kind in ("models", "rayservices", "pods")}
        paper.broken.set()
        await asyncio.sleep(40)
        paper.broken.clear()
        paper.refused = {("other", "rayservices")}
        await asyncio.sleep(40)
        paper.refused.clear()
        await asyncio.sleep(40)
    assert paper.applied == []


async def test_a_name_is_not_given_away_before_every_namespace_was_asked() -> None:
    """The older Model, whose namespace answers late, has the same name."""
    paper = Paper()
    paper.slow = "other"
    with managed(paper):
        await asyncio.sleep(5)
        paper.go.set()
        await asyncio.sleep(5)
    assert paper.applied == ["other"]


class Ending(Paper):
    """The namespace `other` is being deleted. Others write its Model meanwhile, for a while."""

    def __init__(self, conflicts: int) -> None:
        super().__init__()
        self.conflicts = conflicts
        self.left: list[str] | None = None

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        return {"metadata": {"name": name} | ({"deletionTimestamp": "now"} if name == "other" else {})}

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        (model,), since = await super().list(kind, namespace)
        model["metadata"]["finalizers"] = ["example.com/own", "cloudach.dev/drain"] if self.left is None else self.left
        return [model], since

    async def merge(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert (kind.plural, namespace, body["metadata"]["resourceVersion"]) == ("models", "other", "1")
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict(409, "somebody was faster")
        self.left = body["metadata"]["finalizers"]
        return body


async def test_models_of_a_namespace_that_is_deleted_are_let_go_and_no_others() -> None:
    paper = Ending(conflicts=3)
    await Endings(paper).let_go_of_ending(["llm", "other"])
    assert paper.left == ["example.com/own"]


async def test_a_namespace_is_gone_only_if_the_api_server_says_so() -> None:
    class Closed(Paper):
        async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
            raise Refused(403, "no")

    assert await Endings(Paper()).is_gone("other")  # nothing is found there
    assert not await Endings(Ending(conflicts=0)).is_gone("other")
    assert not await Endings(Closed()).is_gone("other")
