"""Plans are carried out on RayServices here: apply, remove foreign fields, and drop a second cluster
that is given up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cloudach_kube.errors import NotFound, Refused
from cloudach_kube.kinds import Kind

from ..decide.belonging import belongs, whose
from ..decide.drift import foreign
from ..decide.plan import Plan, cleaning
from ..decide.rollout import Around
from ..key import Key
from ..kinds import RAY_SERVICES
from ..resources.ray_service import live

log = logging.getLogger(__name__)

_REFUSED_FOR_S = 300.0
"""A missing right is taken for missing for this time, and then tried again."""
_RETRY_S = (1.0, 30.0)
"""A refused write waits for this time before it is tried again, at first and at most."""
_SOON_S = 5.0
"""A change that comes so soon after a write is made by a program, which will do it again."""
_MAX_PAUSE_S = 30.0
_OFTEN = 3


class Api(Protocol):
    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]: ...
    async def apply(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]: ...
    async def patch(
        self, kind: Kind, namespace: str, name: str, operations: Sequence[dict[str, Any]]
    ) -> dict[str, Any]: ...
    async def merge(
        self, kind: Kind, namespace: str, name: str, body: Mapping[str, Any], *, sub: str = ""
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Found:
    ray_service: dict[str, Any] | None
    foreign: str = ""
    """This says whose the RayService of this name is, if it is somebody else's."""


@dataclass(slots=True)
class _Contest:
    """It counts how often the last write had to be repeated, because somebody undid it."""

    written: Any
    times: int
    written_at: float

    @property
    def pause_s(self) -> float:
        return min(2.0**self.times - 1, _MAX_PAUSE_S)

    def goes_on(self, now: float) -> bool:
        """Tells if a change at this time is one more undoing of the same write."""
        return now - self.written_at < _SOON_S + 2 * self.pause_s


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The API server refused a write; `words` are its words, and `times` says how often in a row."""

    written: Any
    words: str
    times: int
    at: float


class RayServices:
    """All methods that write raise KubeError."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._no_status: dict[str, float] = {}  # namespaces where we may not write it, and since when
        self._tolerated: dict[Key, str] = {}
        self._contests: dict[Key, _Contest] = {}
        self._refusals: dict[Key, _Refusal] = {}

    async def find(self, key: Key, model: Mapping[str, Any], seen: dict[str, Any] | None) -> Found:
        """Finds the Model's RayService. `model` is its metadata. `seen` is what the informer has, which selects by
        labels.

        A RayService without our labels is in no informer, whether it is ours or another's. So the API server is asked,
        because applying ours would take that one over.
        """
        there = seen
        if there is None:
            try:
                there = await self._api.get(RAY_SERVICES, *key)
            except NotFound:
                return Found(None)
        if belongs(there, model):
            return Found(there)
        return Found(None, f"There is a RayService {key[1]}, and {whose(there)}; it is left as it is.")

    async def adopt(self, key: Key, there: dict[str, Any], owner: Mapping[str, Any]) -> dict[str, Any]:
        """Makes `owner` the only owner. Applying would add it, and an object takes one controlling owner alone."""
        owners = there["metadata"].get("ownerReferences") or ()
        if there["metadata"].get("deletionTimestamp") or any(one.get("uid") == owner["uid"] for one in owners):
            return there
        body = {"metadata": {"resourceVersion": there["metadata"]["resourceVersion"], "ownerReferences": [owner]}}
        log.info("RayService of an earlier Model adopted", extra={"model": "/".join(key)})
        return await self._api.merge(RAY_SERVICES, *key, body)

    def refusal(self, key: Key, done: Plan) -> str:
        """Returns what the API server said to the same write, while it is too early to try again."""
        last = self._refusals.get(key)
        if last is None or last.written != _writes(done):
            return ""
        pause = min(_RETRY_S[0] * 2.0 ** min(last.times, 10), _RETRY_S[1])
        return last.words if self._clock() - last.at < pause else ""

    def refused(self, key: Key, done: Plan, words: str) -> None:
        last = self._refusals.get(key)
        again = last is not None and last.written == _writes(done)
        times = last.times + 1 if last is not None and again else 0
        self._refusals[key] = _Refusal(_writes(done), words, times, self._clock())

    def around(self, key: Key, pods: Iterable[Mapping[str, Any]]) -> Around:
        """`pods` are those of the Model."""
        names = {
            str((pod["metadata"].get("labels") or {}).get("ray.io/cluster") or "")
            for pod in pods
            if not pod["metadata"].get("deletionTimestamp")
            and (pod["metadata"].get("labels") or {}).get("ray.io/node-type") != "redis-cleanup"
        }
        since = self._no_status.get(key[0])
        return Around(
            with_pods=frozenset(names - {""}),
            can_drop=since is None or self._clock() - since > _REFUSED_FOR_S,
            tolerated=self._tolerated.get(key, ""),
        )

    def contested(self, key: Key) -> bool:
        """Tells if somebody undoes our writes again and again."""
        contest = self._contests.get(key)
        return contest is not None and contest.times >= _OFTEN and contest.goes_on(self._clock())

    def waits(self, key: Key, done: Plan) -> bool:
        """Tells if this write has to wait, because somebody undoes it again and again."""
        contest = self._contests.get(key)
        if contest is None or not _writes(done) or contest.written != _writes(done):
            return False
        return self._clock() - contest.written_at < contest.pause_s

    async def carry_out(self, key: Key, there: dict[str, Any] | None, done: Plan) -> dict[str, Any] | None:
        """Returns the RayService as it is afterwards."""
        found = there
        if done.manifest is not None:
            found = await self._api.apply(RAY_SERVICES, *key, done.manifest)
        self._refusals.pop(key, None)
        if _writes(done):
            self._note(key, _writes(done))
        if found is not None and done.cluster is not None:
            found = await self._clean(key, found, done.cluster)
        if found is not None and done.drop and live(found).pending == done.drop:
            found = await self._drop(key, found)
        return found

    def forget(self, key: Key) -> None:
        self._tolerated.pop(key, None)
        self._contests.pop(key, None)
        self._refusals.pop(key, None)

    def _note(self, key: Key, written: Any) -> None:
        now, old = self._clock(), self._contests.get(key)
        again = old is not None and old.written == written and old.goes_on(now)
        self._contests[key] = _Contest(written, old.times + 1 if old is not None and again else 0, now)

    async def _clean(self, key: Key, there: dict[str, Any], cluster: dict[str, Any]) -> dict[str, Any]:
        """Removes foreign fields. What an admission webhook adds again at once stays, because another try would change
        nothing.
        """
        operations = cleaning(there, cluster)
        if operations:
            there = await self._api.patch(RAY_SERVICES, *key, operations)
        left = foreign(live(there).cluster, cluster)
        if left:
            log.warning("fields come back whenever they are removed", extra={"model": "/".join(key), "fields": left})
            self._tolerated[key] = left
        else:
            self._tolerated.pop(key, None)
        return there

    async def _drop(self, key: Key, there: dict[str, Any]) -> dict[str, Any]:
        """Drops the second cluster, but only in the version that was looked at. A cluster that has begun to serve
        meanwhile is kept.
        """
        version = there["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "status": {"pendingServiceStatus": None}}
        try:
            found = await self._api.merge(RAY_SERVICES, *key, body, sub="status")
        except Refused as error:
            self._no_status[key[0]] = self._clock()
            log.warning("a replacement cannot be taken back", extra={"model": "/".join(key), "error": str(error)})
            return there
        self._no_status.pop(key[0], None)
        log.info("replacement taken back", extra={"model": "/".join(key), "cluster": live(there).pending})
        return found


def _writes(done: Plan) -> Any:
    """Returns what the plan writes, to be compared. Notes are left out, because they hold times and names. None means
    that a second cluster is given up and nothing else.
    """
    if done.manifest is None and done.cluster is None:
        return None
    return (done.manifest or {}).get("spec"), done.cluster
