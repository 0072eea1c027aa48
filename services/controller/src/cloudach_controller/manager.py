"""The manager holds the informers, the queue and the workers of the controller that leads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from cloudach_kube.client import KubeClient
from cloudach_kube.errors import Conflict, KubeError
from cloudach_kube.kinds import DISRUPTION_BUDGETS, NETWORK_POLICIES, PODS, SECRETS, Kind
from cloudach_model_api.claims import Claim, Names
from cloudach_model_api.keys import ENGINE_KEYS_SECRET
from cloudach_model_api.model import InvalidModel
from cloudach_model_api.names import LABEL_MODEL

from . import metrics
from .act.companions import Companions
from .act.endings import Endings
from .act.engine_keys import EngineKeys
from .act.events import Events
from .act.gcs_store import GcsStore
from .act.gcs_users import OF_RAY_SERVICES, GcsUsers, model_of
from .act.own_tokens import OwnTokens
from .act.ray_token import RayToken
from .act.ray_tokens import RayTokens
from .election.claims import Claims
from .key import Key
from .kinds import MODEL_USES, MODELS, RAY_CLUSTERS, RAY_SERVICES
from .observe.observer import Observer
from .reconcile import Cache, Reconciler
from .resources.gcs_store import GCS_STORE_SECRET
from .settings import Settings
from .watch.informer import Changed, Informer
from .watch.parsed import Parsed
from .watch.spaces import Space, notes, why_unready
from .watch.work_queue import WorkQueue

log = logging.getLogger(__name__)

_UNCLAIMED_S = 1.0  # pause between two tries to learn whose the Models of a namespace are
_ENDINGS_S = 5.0  # pause between two looks at namespaces that cannot be read


class Manager:
    def __init__(
        self, api: KubeClient, observer: Observer, events: Events, own_tokens: OwnTokens, settings: Settings
    ) -> None:
        self._settings = settings
        self._queue: WorkQueue[Key] = WorkQueue(retry_max_s=settings.kubernetes.retry_max_s)
        self._names = Names(self._queue.add)
        self._parsed = Parsed()
        spaces: tuple[str | None, ...] = settings.kubernetes.namespaces or (None,)

        def informers(kind: Kind, changed: Changed, **which: Any) -> list[Informer]:
            return [Informer(api, kind, each, changed, turned=partial(self._turned, each), **which) for each in spaces]

        ours: dict[str, Any] = {"selector": LABEL_MODEL}
        self._models = informers(MODELS, self._model_changed)
        self._uses = informers(MODEL_USES, self._part_changed, **ours, optional=True)
        self._policies = informers(NETWORK_POLICIES, self._part_changed, **ours, optional=True)
        self._budgets = informers(DISRUPTION_BUDGETS, self._part_changed, **ours, optional=True)
        self._keys = informers(SECRETS, self._keys_changed, name=ENGINE_KEYS_SECRET, optional=True)
        self._tokens = informers(SECRETS, self._token_changed, name=settings.ray.token_secret, optional=True)
        store = settings.gcs_store
        self._gcs_secrets = informers(SECRETS, self._keys_changed, name=GCS_STORE_SECRET, optional=True)
        self._clusters = informers(
            RAY_CLUSTERS,
            self._cluster_changed,
            selector=OF_RAY_SERVICES,
            optional=True,
            group=model_of,
            metadata_only=True,
        )
        if not store.address:
            self._gcs_secrets, self._clusters = [], []
        self._ray = informers(RAY_SERVICES, self._part_changed, **ours)
        self._pods = informers(PODS, self._part_changed, **ours, group=_model_of)
        self._all_models = _Merged(self._models)
        beside = (
            self._uses,
            self._keys,
            self._tokens,
            self._policies,
            self._budgets,
            self._gcs_secrets,
            self._clusters,
        )
        kinds = [each for each in (self._models, *beside, self._ray, self._pods) if each]
        self._spaces = {each[0].namespace: Space(each[0].namespace, each) for each in zip(*kinds, strict=True)}
        self._all_asked = False
        self._endings = Endings(api)
        self._claims = Claims(api, settings.leader_election, self._won)
        cache = Cache(
            models=self._all_models,
            ray_services=_Merged(self._ray),
            pods=_Grouped(self._pods),
            names=self._names,
            parsed=self._parsed,
            kuberay_missing=lambda: any(each.missing for each in self._ray),
        )
        companions = Companions(
            api,
            settings,
            uses=_Merged(self._uses),
            uses_missing=_missing(self._uses),
            policies=_Merged(self._policies),
            budgets=_Merged(self._budgets),
            budgets_missing=_missing(self._budgets),
        )
        keys = EngineKeys(api, _Merged(self._keys), unseen=_missing(self._keys))
        self._gcs = GcsUsers(
            api,
            GcsStore(store.address, store.password_file, store.timeout_s) if store.address else None,
            clusters=_Grouped(self._clusters),
            models=self._all_models,
            held=_Merged(self._gcs_secrets),
            unseen=_missing([*self._clusters, *self._gcs_secrets]),
            settled=self._settled,
            gone=self._is_gone,
            changed=self._look_at_all,
        )
        name, self._tokens_held = settings.ray.token_secret, _Merged(self._tokens)
        self._ray_token = RayToken(api, name, self._tokens_held, unseen=_missing(self._tokens))
        tokens = RayTokens(self._ray_token, own_tokens, settings.ray)
        self._reconciler = Reconciler(
            api, cache, observer, events, companions, keys, self._gcs, self._endings, tokens, settings
        )

    @property
    def unready(self) -> str:
        return why_unready(self._spaces.values())

    @property
    def notes(self) -> str:
        return "\n".join(filter(None, (notes(self._spaces.values()), self._claims.notes)))

    @property
    def _informers(self) -> list[Informer]:
        return [informer for space in self._spaces.values() for informer in space.informers]

    async def run(self) -> None:
        """Runs until it is cancelled. A namespace is worked on as soon as all of it was seen, even when others cannot
        be read.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                for informer in self._informers:
                    tasks.create_task(informer.run())
                tasks.create_task(self._resync())
                tasks.create_task(self._gcs.watch(self._settings.gcs_store.poll_s))
                tasks.create_task(self._end())
                tasks.create_task(self._claims.keep())
                for _ in range(self._settings.kubernetes.workers):
                    tasks.create_task(self._work())
        finally:
            self._queue.close()

    async def _end(self) -> None:
        """Releases Models whose namespace is being deleted, because our rights in it may go before they do."""
        while True:
            await asyncio.sleep(_ENDINGS_S)
            unread = [each.namespace for each in self._spaces.values() if each.namespace and each.refused]
            await self._endings.let_go_of_ending(unread)

    def _turned(self, namespace: str | None) -> None:
        """Reacts when a watch of the namespace has begun or was lost."""
        space = self._spaces[namespace]
        metrics.READABLE.labels(space.name).set(space.begun)
        if space.worked_on and not space.begun:
            space.worked_on = False
            log.warning("namespace cannot be read", extra={"namespace": space.name, "error": space.refused})
        # A name may be held by an older Model of another namespace, so each of them is asked first, once.
        if not self._all_asked:
            self._all_asked = all(each.asked for each in self._informers)
            taken_up = list(self._spaces.values()) if self._all_asked else []
        else:
            taken_up = [space]
        for each in taken_up:
            if each.begun and not each.worked_on:
                self._take_up(each)

    def _take_up(self, space: Space) -> None:
        space.worked_on = True
        log.info("the Models of a namespace are worked on", extra={"namespace": space.name})
        for models in self._models:
            if models.namespace == space.namespace:
                for key in models.objects:
                    self._queue.add(key)

    def _space_of(self, namespace: str) -> Space | None:
        return self._spaces.get(namespace) or self._spaces.get(None)

    def _is_worked_on(self, key: Key) -> bool:
        space = self._space_of(key[0])
        return space is not None and space.worked_on

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            if not self._is_worked_on(key):
                self._queue.done(key)  # it is added again when its namespace can be read
                continue
            ours = await self._claims.is_ours(key[0])
            if not ours:
                self._queue.done(key)  # it is added again when the namespace is ours
                if ours is None:
                    self._queue.add_after(key, _UNCLAIMED_S)
                continue
            began = time.monotonic()
            try:
                again = await self._reconciler.reconcile(key)
            except Conflict:
                self._failed(key, "conflict", None)
            except KubeError as error:
                self._failed(key, "refused" if 400 <= error.status < 500 else "unreachable", error)
            except Exception as error:
                # One Model must not stop the others.
                log.exception("reconcile failed", extra={"model": "/".join(key)})
                self._failed(key, "error", error)
            else:
                metrics.RECONCILES.labels("ok").inc()
                self._queue.done(key)
                if again is not None:
                    self._queue.add_after(key, max(again, 0.05))
            metrics.RECONCILE_S.observe(time.monotonic() - began)
            metrics.QUEUE.set(len(self._queue))

    def _failed(self, key: Key, result: str, error: Exception | None) -> None:
        metrics.RECONCILES.labels(result).inc()
        delay = self._queue.failed(key)
        if error is not None:
            text = {"model": "/".join(key), "error": str(error), "retry_s": round(delay, 1)}
            log.warning("a look at a Model failed and is repeated later", extra=text)

    async def _resync(self) -> None:
        while True:
            for kind in {each.kind for each in self._informers}:
                stand = all(each.connected for each in self._informers if each.kind == kind)
                metrics.CONNECTED.labels(kind).set(stand)
            for key in self._all_models:
                self._queue.add_idle(key)
            await asyncio.sleep(self._settings.kubernetes.resync_s)

    def _model_changed(self, key: Key, _: dict[str, Any]) -> None:
        self._claim(key)
        self._queue.add(key)

    def _claim(self, key: Key) -> None:
        """Notes which serving names the Model asks for. An invalid spec changes nothing, as in gateways."""
        obj = self._all_models.get(key)
        if obj is None:
            self._parsed.forget(key)
            self._names.take(key, None)
            return
        try:
            self._names.take(key, Claim.of(self._parsed.model(key, obj)))
        except InvalidModel:
            if key not in self._names or obj["metadata"].get("deletionTimestamp"):
                self._names.take(key, Claim.unread(obj))

    def _settled(self, namespace: str) -> bool:
        """Tells if all Models of a namespace are known. They are not where the namespace is not watched any more."""
        space = self._space_of(namespace)
        if space is None or not space.worked_on:
            return False
        return all(each.connected for each in self._models if each.namespace == space.namespace)

    async def _is_gone(self, namespace: str) -> bool:
        """Tells if the namespace has ceased to exist. One that is not watched any more is not asked for, because we may
        not have the right to know.
        """
        return self._space_of(namespace) is not None and await self._endings.is_gone(namespace)

    def _look_at_all(self) -> None:
        for key in self._all_models:
            self._queue.add(key)

    def _cluster_changed(self, key: Key, cluster: dict[str, Any]) -> None:
        model = model_of(cluster)
        if model is not None:
            self._queue.add(model)

    def _won(self, namespace: str) -> None:
        for key in self._all_models:
            if key[0] == namespace:
                self._queue.add(key)

    def _keys_changed(self, key: Key, _: dict[str, Any]) -> None:
        for model in self._all_models:
            if model[0] == key[0]:
                self._queue.add(model)

    def _token_changed(self, key: Key, secret: dict[str, Any]) -> None:
        self._ray_token.seen(key, secret)
        if key not in self._tokens_held:
            self._keys_changed(key, secret)

    def _part_changed(self, key: Key, part: dict[str, Any]) -> None:
        model = _model_of(part)
        if model is not None:
            self._queue.add(model)


def _model_of(part: dict[str, Any]) -> Key | None:
    """Returns the Model that an object belongs to."""
    meta = part["metadata"]
    name = (meta.get("labels") or {}).get(LABEL_MODEL)
    return (meta.get("namespace", ""), name) if name else None


def _missing(informers: list[Informer]) -> Callable[[str], bool]:
    """Returns a function that tells if one of these kinds cannot be seen in a namespace. What one namespace lacks says
    nothing about others.
    """

    def missing(namespace: str) -> bool:
        return any(each.missing for each in informers if each.namespace in (None, namespace))

    return missing


class _Merged(Mapping[Key, dict[str, Any]]):
    """This view shows the objects of several informers as one mapping. A look-up costs the same with any number of
    them.
    """

    def __init__(self, informers: list[Informer]) -> None:
        self._informers = {informer.namespace: informer for informer in informers}

    def __getitem__(self, key: Key) -> dict[str, Any]:
        informer = _of_namespace(self._informers, key[0])
        if informer is None:
            raise KeyError(key)
        return informer.objects[key]

    def __iter__(self) -> Iterator[Key]:
        return iter([key for informer in self._informers.values() for key in informer.objects])

    def __len__(self) -> int:
        return sum(len(informer.objects) for informer in self._informers.values())


class _Grouped(Mapping[Key, tuple[dict[str, Any], ...]]):
    """This view shows the objects of several informers by the Model that they belong to."""

    def __init__(self, informers: list[Informer]) -> None:
        self._informers = {informer.namespace: informer for informer in informers}

    def __getitem__(self, key: Key) -> tuple[dict[str, Any], ...]:
        informer = _of_namespace(self._informers, key[0])
        if informer is None:
            raise KeyError(key)
        return tuple(informer.groups[key].values())

    def __iter__(self) -> Iterator[Key]:
        return iter([key for informer in self._informers.values() for key in informer.groups])

    def __len__(self) -> int:
        return sum(len(informer.groups) for informer in self._informers.values())


def _of_namespace(informers: Mapping[str | None, Informer], namespace: str) -> Informer | None:
    """An informer whose namespace is None sees all namespaces."""
    return informers.get(namespace) or informers.get(None)
