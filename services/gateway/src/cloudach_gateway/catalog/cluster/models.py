"""The cluster's Models stand in the catalog, and are kept true for as long as the gateway runs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Protocol

from cloudach_kube.access import Access
from cloudach_kube.client import Object
from cloudach_kube.errors import KubeError
from cloudach_kube.kinds import ENDPOINT_SLICES, Kind
from cloudach_kube.reflector import Mirror, Reflector
from cloudach_model_api import Model

from ...errors import ModelNotReady
from ...settings import Kubernetes
from .. import Catalog, Resource, ServedModel, Why
from . import snapshot
from .api import MODELS, Api
from .endpoints import OF_SERVE_SERVICES, Endpoints
from .engine_keys import EngineKeys
from .entries import Refused, leaving, read, resource, served, trimmed
from .marks import Alarm, InUse, Uses
from .reach import Reach, service_of
from .start_times import StartTimes

_log = logging.getLogger("cloudach.gateway")

_MESSAGES = {
    Why.ASLEEP: "The model `{id}` is waking up.",
    Why.STARTING: "The model `{id}` is starting.",
    Why.NO_ENDPOINT: "The model `{id}` cannot be reached at the moment.",
    Why.OFF: "The model `{id}` is switched off.",
    Why.STUCK: "The model `{id}` cannot be started at the moment.",
}


_Key = tuple[Resource, str]  # an entry's Model, and its id: the adapters of a Model are entries too


class News(Protocol):
    """This port hears what happens to the Models, and counts it."""

    def models(self, states: Mapping[str, int]) -> None:
        """Hears how many Models there are, by `ready`, a `Why`, `refused` or `deleting`."""

    def endpoints_watched(self, watched: bool) -> None:
        """Hears when the pods of all Models begin or cease to be watched."""

    def in_touch(self, *, every_watch: bool) -> None:
        """Hears that the API server has spoken. `every_watch` is True when it has for each namespace since it was
        last lost.
        """

    def out_of_touch(self) -> None: ...

    def woke(self, model: str) -> None:
        """Hears that this Model was asked to wake."""


class ClusterModels:
    """This mirrors the Models into the catalog. `start` runs within the loop that serves, and `stop` in the end."""

    def __init__(
        self,
        settings: Kubernetes,
        access: Access,
        catalog: Catalog,
        news: News,
        left: Callable[[Collection[str]], None] = lambda _: None,
    ) -> None:
        """`left` is called with upstreams whose open connections take no new request.

        A pod behind them has gone, or the Service's address now stands for other pods.
        """
        self._settings = settings
        self._left = left
        self._access = access
        self._catalog = catalog
        self._news = news
        self._places: tuple[str | None, ...] = settings.namespaces or (None,)
        self._objects: dict[Resource, Object] = {}
        self._models: dict[Resource, Model] = {}
        self._bad: dict[Resource, Refused] = {}
        self._service_of: dict[Resource, Resource] = {}
        self._models_of: dict[Resource, set[Resource]] = {}  # the same, by Service
        self._reach = Reach(settings.engine_addresses, settings.service_connection_s)
        self._bare: dict[_Key, ServedModel] = {}  # as the Models alone say it
        self._entries: dict[_Key, ServedModel] = {}  # with the addresses of their pods
        self._served: list[_Key] = []  # those that take new requests
        self._lapsed_at: dict[Resource, float] = {}
        self._refused: frozenset[Refused] = frozenset()
        self._listed: set[str | None] = set()
        self._all_listed = asyncio.Event()
        self._lost: dict[str | None, datetime] = {place: datetime.now(UTC) for place in self._places}
        self._times = StartTimes()
        self._tasks: list[asyncio.Task[None]] = []
        self._saving: asyncio.Task[None] | None = None
        self._dirty = False
        catalog.complete = False

    async def start(self) -> None:
        """Serves at once what was known at the last stop, and begins to follow the API server."""
        settings = self._settings
        self._api = Api(self._access, timeout_s=settings.timeout_s)
        self._clock = asyncio.get_running_loop().time
        self._endpoints = Endpoints(self._places, self._moved, self._news.endpoints_watched)
        self._keys = EngineKeys(self._api.secret, self._publish)
        uses = Uses(self._api)
        self._alarm = Alarm(uses, self._models.get, again_s=settings.wake_again_s, woke=self._woke)
        self._in_use = InUse(uses, every_s=settings.in_use_every_s)
        if settings.cache_file is not None:
            known = snapshot.load(settings.cache_file)
            if known is not None:
                _log.info(
                    "models are served as the cache file knows them",
                    extra={"count": len(known.models), "path": str(settings.cache_file)},
                )
                for obj in known.models:
                    self._take(obj)
                self._keys.restore(known.keys)
                self._publish()
        for place in self._places:
            self._follow(MODELS, place, self, settings.label_selector)
            self._follow(ENDPOINT_SLICES, place, self._endpoints, OF_SERVE_SERVICES)

    def _follow(self, kind: Kind, place: str | None, mirror: Mirror, selector: str) -> None:
        reflector = Reflector(
            self._api.client, kind, place, mirror, selector=selector, relist_s=self._settings.resync_s
        )
        name = f"{kind.plural} of {place or 'all namespaces'}"
        self._tasks.append(asyncio.create_task(reflector.run(), name=name))

    async def known(self) -> None:
        """Waits until there is something to serve: all Models, or after `start_wait_s` those of the file or of last
        time.
        """
        try:
            async with asyncio.timeout(self._settings.start_wait_s):
                await self._all_listed.wait()
                await self._keys.settled()
                await self._endpoints.asked()
        except TimeoutError:
            if not any(True for _ in self._catalog):
                await self._all_listed.wait()

    async def stop(self) -> None:
        self._alarm.stop()
        self._in_use.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keys.stop()
        if self._saving is not None:
            await self._saving
        await self._api.close()

    @property
    def out_of_touch_since(self) -> datetime | None:
        """Returns since when a watch is lost, and None while every watch stands."""
        return min(self._lost.values(), default=None)

    @property
    def endpoints_note(self) -> str | None:
        """Returns what an operator should know of how pods are found, and None while all is well."""
        return self._endpoints.note

    # For requests.

    def lapsed(self, model: ServedModel) -> bool:
        """Tells if the Model could be asked until a moment ago."""
        assert model.resource is not None
        since = self._lapsed_at.get(model.resource)
        return since is not None and self._clock() - since < self._settings.endpoint_wait_s

    def in_use(self, model: ServedModel) -> AbstractContextManager[None]:
        """Marks a Model that may sleep as in use, for a request's whole life."""
        assert model.resource is not None
        return self._in_use.by_one(model.resource)

    @contextmanager
    def awaited(self, model: ServedModel) -> Iterator[None]:
        """Wakes a Model that sleeps, for as long as a request waits for it."""
        assert model.resource is not None
        with self._alarm.set_for(model.resource):
            yield

    def expected_s(self, model: ServedModel) -> float | None:
        """Returns how long the Model takes to wake, if that is known."""
        assert model.resource is not None
        return self._times.expected_s(model.resource)

    def not_ready(self, model: ServedModel, *, waited_s: float = 0.0) -> ModelNotReady:
        assert model.resource is not None
        assert model.absence is not None
        retry_s = self._times.retry_after_s(model.resource, model.absence, waited_s=waited_s, now=datetime.now(UTC))
        return ModelNotReady(
            _MESSAGES[model.absence.why].format(id=model.id),
            retry_after_s=retry_s,
            cause=f"{model.resource}: {model.absence.why}; {model.absence.detail}"[:1000].rstrip("; "),
        )

    # What the reflectors tell.

    def listed(self, namespace: str | None, objects: list[Object]) -> None:
        there = {self._take(obj) for obj in objects}
        for own in [own for own in self._objects if namespace in (None, own.namespace) and own not in there]:
            self._forget(own)
        self._listed.add(namespace)
        if len(self._listed) == len(self._places):
            # Whoever was known from the last time, of a namespace that is watched no more, goes too.
            for own in [own for own in self._objects if self._places[0] and own.namespace not in self._places]:
                self._forget(own)
            self._catalog.complete = True
        self._publish()
        if self._catalog.complete:
            self._all_listed.set()

    def changed(self, namespace: str | None, obj: Object) -> None:
        self._take(obj)
        self._publish()

    def deleted(self, namespace: str | None, obj: Object) -> None:
        metadata = obj.get("metadata") or {}
        self._forget(Resource(str(metadata.get("namespace", "")), str(metadata.get("name", ""))))
        self._publish()

    def in_touch(self, namespace: str | None) -> None:
        if self._lost.pop(namespace, None) is not None:
            _log.info("models are watched", extra={"namespace": namespace})
        self._news.in_touch(every_watch=not self._lost)

    def out_of_touch(self, namespace: str | None, problem: KubeError) -> None:
        if namespace not in self._lost:
            self._lost[namespace] = datetime.now(UTC)
        self._news.out_of_touch()
        _log.warning(
            "the API server cannot be asked; models stay as last known",
            extra={"namespace": namespace, "cause": str(problem)},
        )

    # Inside.

    def _take(self, obj: Object) -> Resource:
        found = read(obj)
        if isinstance(found, Refused):  # what was served before goes on
            self._bad[found.resource] = found
            self._objects.setdefault(found.resource, trimmed(obj))
            return found.resource
        own = resource(found)
        self._bad.pop(own, None)
        self._unlink(own)
        self._objects[own], self._models[own] = trimmed(obj), found
        if (service := service_of(found)) is not None:
            self._service_of[own] = service
            self._models_of.setdefault(service, set()).add(own)
        return own

    def _forget(self, own: Resource) -> None:
        self._unlink(own)
        self._objects.pop(own, None)
        self._models.pop(own, None)
        self._bad.pop(own, None)
        self._lapsed_at.pop(own, None)

    def _unlink(self, own: Resource) -> None:
        """Takes the Model from its Service, because it goes or may get another one."""
        service = self._service_of.pop(own, None)
        if service is not None:
            self._models_of[service].discard(own)
            if not self._models_of[service]:
                del self._models_of[service]

    def _publish(self) -> None:
        self._keys.follow(self._models.values())
        found, refused = served(self._models.values(), self._catalog.reserved, self._keys.keys)
        going = leaving(self._models.values(), self._keys.keys)
        self._log_refused(frozenset([*refused, *self._bad.values()]))
        self._times.learn(self._models, {_own(entry): entry for entry in found if entry.parent is None})
        before, self._bare = self._bare, {_key(entry): entry for entry in (*found, *going)}
        # Their pods are looked at when those change: there may be a thousand entries, and one of them is new.
        same = {key: self._entries.get(key) for key, entry in self._bare.items() if before.get(key) == entry}
        now = {key: same.get(key) or self._reached(key) for key in self._bare}
        changed = [key for key in self._entries.keys() | now.keys() if self._entries.get(key) is not now.get(key)]
        if changed:
            self._take_over(now, changed)
            self._served = [_key(entry) for entry in found]
            self._catalog.replace([now[key] for key in self._served], [now[_key(entry)] for entry in going])
            self._save_soon()
        self._count()

    def _moved(self, services: Collection[Resource]) -> None:
        """Makes only the entries of these Services' Models anew, because there may be hundreds of others."""
        owns = {own for service in services for own in self._models_of.get(service, ())}
        touched = [key for key in self._bare if key[0] in owns]
        changed = {key: now for key in touched if (now := self._reached(key)) is not self._entries[key]}
        if self._reach.addresses == "service":  # its connections stay with the pods that they were made to
            self._left({upstream for key in touched for upstream in self._bare[key].upstreams})
        if changed:
            self._take_over(self._entries | changed, changed)
            self._catalog.put(changed.values())
            self._count()

    def _reached(self, key: _Key) -> ServedModel:
        """Returns the entry with the addresses of now. It is the same object as before if nothing is new."""
        service = self._service_of.get(key[0])
        entry = self._reach.of(self._bare[key], None if service is None else self._endpoints.pods(service))
        before = self._entries.get(key)
        return before if before == entry else entry

    def _take_over(self, now: dict[_Key, ServedModel], changed: Collection[_Key]) -> None:
        before, self._entries = self._entries, now
        _log_changes(before, now, changed)
        gone: set[str] = set()
        for key in changed:
            old, new = before.get(key), now.get(key)
            if old is not None and old.parent is None:
                gone |= {*old.upstreams} - {*(new.upstreams if new is not None else ())}
            if new is not None and new.parent is None:
                if new.absence is None or new.absence.why not in (Why.STARTING, Why.NO_ENDPOINT):
                    self._lapsed_at.pop(key[0], None)
                elif old is not None and old.absence is None:
                    self._lapsed_at[key[0]] = self._clock()
        if gone:
            self._left(gone)

    def _count(self) -> None:
        own = {key[0]: self._entries[key] for key in self._served if self._entries[key].parent is None}
        states = Counter("ready" if entry.absence is None else str(entry.absence.why) for entry in own.values())
        states["refused"] = len({one.resource for one in self._refused} - own.keys())
        states["deleting"] = len(self._models.keys() - own.keys()) - states["refused"]
        self._news.models(states)

    def _log_refused(self, refused: frozenset[Refused]) -> None:
        for one in sorted(refused - self._refused, key=lambda one: one.resource):
            _log.error("a Model is not served as it says", extra={"resource": str(one.resource), "cause": one.problem})
        self._refused = refused

    def _woke(self, own: Resource, problem: KubeError | None) -> None:
        model = self._models.get(own)
        if problem is None:
            _log.info("a model is woken", extra={"resource": str(own)})
            self._news.woke(model.id if model is not None else "")
        else:
            _log.error("a model cannot be woken", extra={"resource": str(own), "cause": str(problem)})

    def _save_soon(self) -> None:
        self._dirty = True
        if self._settings.cache_file is not None and self._saving is None and self._catalog.complete:
            self._saving = asyncio.create_task(self._save(), name="save known models")

    async def _save(self) -> None:
        try:
            while self._dirty and self._settings.cache_file is not None:
                self._dirty = False
                known = snapshot.Known(list(self._objects.values()), dict(self._keys.keys))
                await asyncio.to_thread(snapshot.save, self._settings.cache_file, known)
        except OSError as error:
            _log.warning("the known models cannot be kept on disk", extra={"cause": str(error)})
        finally:
            self._saving = None


def _key(entry: ServedModel) -> _Key:
    return _own(entry), entry.id


def _own(entry: ServedModel) -> Resource:
    assert entry.resource is not None
    return entry.resource


def _log_changes(
    before: Mapping[_Key, ServedModel], now: Mapping[_Key, ServedModel], changed: Collection[_Key]
) -> None:
    for key in sorted(changed):
        old, new = (
            None if one is None or not one.names else _log_fields(one) for one in (before.get(key), now.get(key))
        )
        if old is None and new is not None:
            _log.info("model new", extra=new)
        elif old is not None and new is None:
            _log.info("model gone", extra={"model": key[1], "resource": str(key[0])})
        elif new is not None and new != old:
            _log.info("model changed", extra=new)


def _log_fields(entry: ServedModel) -> dict[str, object]:
    return {
        "model": entry.id,
        "resource": str(entry.resource),
        "aliases": list(entry.names[1:]),
        "state": "ready" if entry.absence is None else str(entry.absence.why),
        "upstreams": list(entry.upstreams),
    }
