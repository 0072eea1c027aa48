"""One look at one Model has four steps: observe, plan, execute, write the status. It is level-triggered, so what
happened before does not matter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cloudach_kube.client import KubeClient
from cloudach_kube.errors import KubeError, NotFound, is_refusal
from cloudach_model_api.claims import Names
from cloudach_model_api.model import InvalidModel, Model
from cloudach_model_api.names import API_VERSION, FINALIZER, KIND
from cloudach_model_api.status import ConditionType, ModelStatus, State
from cloudach_model_api.use import owner

from . import metrics
from .act.companions import Companions
from .act.endings import Endings
from .act.engine_keys import EngineKeys
from .act.events import Events
from .act.gcs_users import GcsUsers
from .act.ray_services import Found, RayServices
from .act.ray_tokens import RayTokens
from .decide import news
from .decide import status as tell
from .decide.marks import Marks
from .decide.news import News
from .decide.observation import Observation, active_head, cluster_started, head_of, replacing
from .decide.plan import Plan, asked_anew, plan
from .decide.replicas import Demand, demand, serve_missed_options, with_current_options
from .key import Key
from .kinds import MODELS, RAY_SERVICES
from .observe.observer import Observer
from .resources import disruption, ray_tokens
from .resources.additions import is_key_asked_for, is_locked
from .resources.ray_service import live, may_sleep_since
from .settings import Settings
from .watch.pace import Pace
from .watch.parsed import Parsed

log = logging.getLogger(__name__)

_MOVING = (State.PENDING, State.DEPLOYING, State.SCALING, State.DELETING, State.DEGRADED)


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache holds what the informers see, by Model."""

    models: Mapping[Key, dict[str, Any]]
    ray_services: Mapping[Key, dict[str, Any]]
    pods: Mapping[Key, Sequence[dict[str, Any]]]
    kuberay_missing: Callable[[], bool]
    names: Names = field(default_factory=lambda: Names(lambda key: None))
    """They tell which Model holds which serving name."""
    parsed: Parsed = field(default_factory=Parsed)


class Reconciler:
    def __init__(
        self,
        api: KubeClient,
        cache: Cache,
        observer: Observer,
        events: Events,
        companions: Companions,
        keys: EngineKeys,
        gcs: GcsUsers,
        endings: Endings,
        ray_tokens: RayTokens,
        settings: Settings,
    ) -> None:
        self._api = api
        self._companions = companions
        self._keys = keys
        self._gcs = gcs
        self._endings = endings
        self._ray_tokens = ray_tokens
        inference = settings.inference.model_copy(update={"engine_keys": False})
        self._without_keys = settings.model_copy(update={"inference": inference})
        self._cache = cache
        self._observer = observer
        self._ray_services = RayServices(api)
        self._events = events
        self._settings = settings
        self._pace = Pace(settings.ray)
        self._marks = Marks()

    async def reconcile(self, key: Key) -> float | None:
        """Returns when to look again, in s; None to look only when something changes. Raises KubeError."""
        obj = self._cache.models.get(key)
        if obj is None:
            self._forget(key)
            return None
        now = datetime.now(UTC)
        try:
            model = self._cache.parsed.model(key, obj)
        except InvalidModel as error:
            return await self._invalid(key, obj, error, now)
        told, untold = self._companions.use(key, model), self._companions.uses_missing(key[0])
        use = self._marks.by_our_clock(key, told, self._companions.uses.get(key), now)
        wanted = demand(
            model,
            now,
            use,
            untold=untold,
            unmade=use is None and not untold,
            stream_s=self._settings.ray.stream_limit_s,
            may_sleep_since=may_sleep_since(self._cache.ray_services.get(key), now),
        )
        if wanted.mode == "deleting":
            return await self._delete(key, obj, model, wanted, now)
        if FINALIZER not in model.metadata.finalizers:
            if await self._endings.is_ending(key[0]):
                return None  # nothing can be made in there any more
            await self._finalizers(obj, [*model.metadata.finalizers, FINALIZER])
        await self._companions.keep_use(key, model)
        grant = self._cache.names.grant(key)
        await self._gcs.keep(key, model)
        found = await self._find(key, obj)
        there = found.ray_service
        if found.foreign:
            seen = replace(await self._look(key, model, None), foreign=found.foreign)
            return await self._say(obj, model, wanted, Plan("none", None), seen, now)
        # An earlier spec was in force, so there was a RayService, and somebody deleted it.
        vanished = there is None and model.status.observed_generation is not None
        if there is not None:
            there = await self._ray_services.adopt(key, there, owner(model))
        if grant.refused and not grant.names and there is None:  # nobody could reach it
            seen = await self._look(key, model, None)
            return await self._say(obj, model, wanted, Plan("none", None), seen, now)
        exposed = await self._companions.protect(key, model)
        if exposed and there is None:  # no engine is better than one that everybody reaches
            done, refused, applied = Plan("none", None), exposed, None
        else:
            done, refused, applied = await self._bring_about(key, model, wanted, there, now)
        seen = await self._look(key, model, applied, refused=refused, vanished=vanished)
        seen = replace(seen, exposed=exposed)
        seen = await self._catch_up(model, wanted, there, seen)
        return await self._say(obj, model, wanted, done, seen, now)

    async def _find(self, key: Key, obj: Mapping[str, Any]) -> Found:
        if self._cache.kuberay_missing():
            return Found(self._cache.ray_services.get(key))
        return await self._ray_services.find(key, obj["metadata"], self._cache.ray_services.get(key))

    async def _bring_about(
        self, key: Key, model: Model, wanted: Demand, there: dict[str, Any] | None, now: datetime
    ) -> tuple[Plan, str, dict[str, Any] | None]:
        """Returns the plan, the API server's words if it refused it, and the RayService as it is afterwards."""
        target = model.status.desired_replicas if wanted.autoscaled else None
        unseen = self._keys.unseen(key[0])
        settings = self._without_keys if unseen else self._settings
        if not self._gcs.usable(key[0]):
            store = settings.gcs_store.model_copy(update={"new_clusters": False})
            settings = settings.model_copy(update={"gcs_store": store})
        pods = self._cache.pods.get(key, ())
        try:
            token_secret = await self._ray_tokens.secret_for_new_cluster(model)
        except KubeError as error:
            if not is_refusal(error):
                raise
            if there is None:
                return Plan("none", None), str(error), None
            token_secret = ""  # what runs goes on, and a cluster that is made now gets the shared token
        around = replace(self._ray_services.around(key, pods), token_secret=token_secret)
        done = plan(model, wanted, there, settings, target=target, now=now, around=around)
        if there is not None:
            await self._ray_tokens.keep(model, there, pods)
        if done.change == "none" or self._cache.kuberay_missing() or self._ray_services.waits(key, done):
            return done, "", there
        refusal = self._ray_services.refusal(key, done)
        if refusal:
            return done, refusal, there
        try:
            if done.manifest is not None:
                await self._ray_tokens.make(model, done.manifest, pods, first=there is None)
            if done.manifest is not None and is_locked(live(done.manifest).cluster) and not unseen:
                await self._keys.keep(key)  # before a pod wants it
            applied = await self._ray_services.carry_out(key, there, done)
        except KubeError as error:
            if not is_refusal(error):
                raise
            self._ray_services.refused(key, done, str(error))
            return done, str(error), there
        metrics.CHANGES.labels(done.change).inc()
        log.info(
            "RayService changed", extra={"model": "/".join(key), "change": done.change, "replicas": wanted.replicas}
        )
        if key in self._cache.models:
            await self._tell(self._cache.models[key], news.of_change(done.change, key[1]))
        return done, "", applied

    async def _delete(self, key: Key, obj: dict[str, Any], model: Model, wanted: Demand, now: datetime) -> float | None:
        """Lets streams run out first: replicas go as in a scaling to 0, then the RayService, then the finalizer."""
        if FINALIZER not in model.metadata.finalizers:
            return None
        if await self._endings.is_ending(key[0]):
            await self._finalizers(obj, [each for each in model.metadata.finalizers if each != FINALIZER])
            return None
        there = (await self._find(key, obj)).ray_service
        if there is None or self._cache.kuberay_missing():
            await self._keys.forget(key)
            await self._finalizers(obj, [each for each in model.metadata.finalizers if each != FINALIZER])
            return None
        if there["metadata"].get("deletionTimestamp"):
            await self._say(obj, model, wanted, Plan("none", None), Observation(there, (), None), now)
            return self._settings.ray.poll_s
        done, _, applied = await self._bring_about(key, model, wanted, there, now)
        seen = await self._catch_up(model, wanted, there, await self._look(key, model, applied))
        assert model.metadata.deletion_timestamp is not None
        drain = timedelta(seconds=model.spec.drain_seconds + self._settings.ray.drain_margin_s)
        limit = model.metadata.deletion_timestamp + drain
        # The dashboard may not have heard of the zero yet when it was just applied.
        view = seen.replicas
        empty = done.change == "none" and view is not None and view.total == 0 and not view.building
        empty = empty and await self._others_are_empty(key, model, wanted, applied)
        if empty or now >= limit or not cluster_started(applied):
            seen = replace(seen, refused=await self._delete_ray_service(key))
        await self._say(obj, model, wanted, done, seen, now)
        return self._settings.ray.poll_s

    async def _catch_up(
        self, model: Model, wanted: Demand, before: dict[str, Any] | None, seen: Observation
    ) -> Observation:
        """Gives the serving cluster its counts while another one is to take over, because KubeRay does not.

        KubeRay does not do it afterwards either, if the text is again the one that it gave that cluster last.
        """
        there, view = seen.ray_service, seen.replicas
        head = active_head(there, self._cache.pods.get((model.metadata.namespace, model.metadata.name), ()))
        if there is None or view is None or view.app is None or head is None:
            return seen
        if not replacing(there):
            given = live(there).application
            if live(there).observed and not view.building and serve_missed_options(view.app, given):
                await self._observer.tell(model, head, given)
            return seen
        anew = before is not None and asked_anew(model, live(before))
        app = with_current_options(view.app, model, wanted, asked_anew=anew, target=view.target)
        if app is None or live(there).pending_ready:  # the other one takes over in this moment
            return seen
        return replace(seen, behind=await self._observer.tell(model, head, app))

    async def _others_are_empty(self, key: Key, model: Model, wanted: Demand, there: dict[str, Any] | None) -> bool:
        """Lets the replicas go of clusters that were replaced not long ago, because streams run on in them.

        Returns True once none is left.
        """
        now = live(there) if there is not None else None
        pods = self._cache.pods.get(key, ())
        names = self._ray_services.around(key, pods).with_pods
        empty = True
        for name in sorted(names - ({now.active, now.pending} if now is not None else set())):
            head = head_of(name, token_secret=ray_tokens.secret_of(there, pods, name))
            view = await self._observer.replicas_of(model, head) if head is not None else None
            if head is None or view is None:
                continue  # its dashboard cannot be asked
            app = with_current_options(view.app or {}, model, wanted, asked_anew=False, target=None)
            if app is not None:
                await self._observer.tell(model, head, app)
            empty = empty and view.total == 0
        return empty

    async def _delete_ray_service(self, key: Key) -> str:
        """Returns what the API server said if it refused."""
        try:
            await self._api.delete(RAY_SERVICES, *key)
        except NotFound:
            pass
        except KubeError as error:
            if not is_refusal(error):
                raise
            log.warning("the RayService could not be deleted", extra={"model": "/".join(key), "error": str(error)})
            return str(error)
        return ""

    async def _invalid(self, key: Key, obj: dict[str, Any], error: InvalidModel, now: datetime) -> float | None:
        meta = obj["metadata"]
        if meta.get("deletionTimestamp"):
            # Its drain time cannot be read, so none is kept.
            ending = await self._endings.is_ending(key[0])
            there = None if ending else (await self._find(key, obj)).ray_service
            if there is not None and not self._cache.kuberay_missing():
                await self._delete_ray_service(key)
                return self._settings.ray.poll_s
            await self._keys.forget(key)
            await self._finalizers(obj, [each for each in meta.get("finalizers") or [] if each != FINALIZER])
            return None
        try:
            old = ModelStatus.model_validate(obj.get("status") or {})
        except ValueError:
            old = ModelStatus()
        new = tell.invalid(old, error, generation=int(meta.get("generation") or 0), now=now)
        await self._write(obj, old, new)
        return None

    async def _look(
        self, key: Key, model: Model, ray_service: dict[str, Any] | None, *, refused: str = "", vanished: bool = False
    ) -> Observation:
        seen = await self._observer.observe(
            model,
            ray_service,
            self._cache.pods.get(key, ()),
            kuberay_missing=self._cache.kuberay_missing(),
            refused=refused,
            vanished=vanished,
        )
        return replace(seen, contested=self._ray_services.contested(key))

    async def _say(
        self,
        obj: dict[str, Any],
        model: Model,
        wanted: Demand,
        done: Plan,
        seen: Observation,
        now: datetime,
    ) -> float:
        there = seen.ray_service
        engine_key = None
        if there is not None and is_key_asked_for(live(there).cluster, seen.pods):
            engine_key = await self._engine_key(_key(obj), model)
        grant = self._cache.names.grant(_key(obj))
        new = tell.status(model, wanted, done, seen, self._settings, now=now, grant=grant, engine_key=engine_key)
        await self._write(obj, model.status, new)
        await self._budget(_key(obj), model, new, seen)
        self._measure(model, new)
        progressing = new.condition(ConditionType.PROGRESSING)
        moves = progressing is not None and progressing.status == "True"
        moving = moves or new.state in _MOVING or done.change != "none" or seen.unreachable
        pause = self._pace.pause_s(_key(obj), moving=bool(moving), models=len(self._cache.models))
        return min(pause, wanted.look_again_s) if wanted.look_again_s is not None else pause

    async def _budget(self, key: Key, model: Model, now: ModelStatus, seen: Observation) -> None:
        desired, ready = now.desired_replicas or 0, now.ready_replicas or 0
        if seen.unreachable and desired:
            return  # nobody knows which replicas answer, so the budget stays as it is
        if not self._settings.rollout.disruption_budgets:
            desired = 0
        running = seen.replicas.ready if seen.replicas is not None else 0
        # A budget counts by labels, so pods of dropped clusters, too.
        pods = self._cache.pods.get(key, ())
        wanted = disruption.budget(model, desired=desired, ready=ready, running=running, pods=pods)
        await self._companions.keep_budget(key, model, wanted)

    async def _engine_key(self, key: Key, model: Model) -> str | None:
        """Returns the id of the Model's key. Where a right is missing, it is the one that the status has, so that the
        rest of the status is written.
        """
        if self._keys.unseen(key[0]):
            return model.status.engine_key
        try:
            return await self._keys.keep(key)
        except KubeError as error:
            if not is_refusal(error):
                raise
            log.warning("no engine key could be made", extra={"model": "/".join(key), "error": str(error)})
            return model.status.engine_key

    async def _write(self, obj: dict[str, Any], old: ModelStatus, new: ModelStatus) -> None:
        if new.to_object() == old.to_object():
            return
        meta = obj["metadata"]
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "status": new.to_object(),
        }
        try:
            await self._api.apply(MODELS, meta["namespace"], meta["name"], body, sub="status")
        except NotFound:
            return  # deleted meanwhile
        await self._tell(obj, news.of_status(old, new))

    async def _tell(self, obj: dict[str, Any], told: Iterable[News]) -> None:
        for one in told:
            log.info("event chosen", extra={"model": "/".join(_key(obj)), "reason": one.reason})
            await self._events.tell(obj, one.kind, one.reason, one.message)

    async def _finalizers(self, obj: dict[str, Any], finalizers: list[str]) -> None:
        meta = obj["metadata"]
        body = {"metadata": {"finalizers": finalizers, "resourceVersion": meta["resourceVersion"]}}
        try:
            await self._api.merge(MODELS, meta["namespace"], meta["name"], body)
        except NotFound:
            pass

    def _measure(self, model: Model, new: ModelStatus) -> None:
        labels = (model.metadata.namespace, model.metadata.name)
        metrics.DESIRED.labels(*labels).set(new.desired_replicas or 0)
        metrics.READY.labels(*labels).set(new.ready_replicas or 0)
        for state in State:
            metrics.STATE.labels(*labels, state.value).set(new.state is state)

    def _forget(self, key: Key) -> None:
        self._pace.forget(key)
        self._ray_services.forget(key)
        self._ray_tokens.forget(key)
        self._marks.forget(key)
        for gauge in (metrics.DESIRED, metrics.READY):
            try:
                gauge.remove(*key)
            except KeyError:
                pass
        for state in State:
            try:
                metrics.STATE.remove(*key, state.value)
            except KeyError:
                pass


def _key(obj: Mapping[str, Any]) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


__all__ = ["Cache", "KubeError", "Reconciler"]
