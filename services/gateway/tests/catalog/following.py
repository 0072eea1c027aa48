"""A catalog that follows an API server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from cloudach_gateway.catalog import Catalog, ServedModel
from cloudach_gateway.catalog.cluster import ClusterModels
from cloudach_gateway.settings import Kubernetes, Model
from cloudach_kube.access import Access

FILE = ServedModel.from_settings(Model(id="from-file", upstreams=("http://127.0.0.1:1",)))


SLEEPS = {"autoscaling": {"minReplicas": 0, "maxReplicas": 2}}


WAKE, USED = "wakeRequestedAt", "lastRequestAt"


class News:
    def __init__(self) -> None:
        self.states: dict[str, int] = {}
        self.watched = False
        self.endpoints = False
        self.wakes: list[str] = []

    def models(self, states: Mapping[str, int]) -> None:
        self.states = {name: count for name, count in states.items() if count}

    def endpoints_watched(self, watched: bool) -> None:
        self.endpoints = watched

    def in_touch(self, *, every_watch: bool) -> None:
        self.watched = every_watch

    def out_of_touch(self) -> None:
        self.watched = False

    def woke(self, model: str) -> None:
        self.wakes.append(model)


class Following:
    """`left`: upstreams whose connections get no new request."""

    def __init__(self, cluster: ClusterModels, catalog: Catalog, news: News, left: list[str]) -> None:
        self.cluster, self.catalog, self.news, self.left = cluster, catalog, news, left

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.catalog}

    def entry(self, name: str) -> ServedModel:
        found = self.catalog.find(name)
        assert found is not None
        return found


@asynccontextmanager
async def following(access: Access, *file: ServedModel, **settings: Any) -> AsyncIterator[Following]:
    catalog, news = Catalog(file), News()
    left: list[str] = []
    cluster = ClusterModels(Kubernetes(enabled=True, **settings), access, catalog, news, left.extend)
    await cluster.start()
    try:
        yield Following(cluster, catalog, news, left)
    finally:
        await cluster.stop()
