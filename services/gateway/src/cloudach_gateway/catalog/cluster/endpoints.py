"""The pods behind the Models' Services are known by a watch of EndpointSlices, or it is known that they cannot be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cloudach_kube.client import Object
from cloudach_kube.errors import KubeError, is_unseen

from ..served import Resource
from .slices import Slice, own_name, read, ready_addresses

_log = logging.getLogger("cloudach.gateway")

OF_SERVE_SERVICES = "ray.io/serve"
"""Selects the slices of the Services that KubeRay makes for serving. A Service's labels are on its EndpointSlices too,
and which value this one has is KubeRay's own affair."""

# For so long a pod keeps its address for sure. After that it may be another pod's, which would get prompts and a key.
_TRUSTED_S = 60.0


@dataclass(frozen=True, slots=True)
class Pods:
    """These are the ready pods of a Service, as `host:port`. `empty_since` says since when there is none, as far as
    is known.
    """

    addresses: tuple[str, ...]
    empty_since: datetime | None = None


class Endpoints:
    """This is a mirror of EndpointSlices. `moved` is called with the Services whose ready pods have changed.

    While the API server is away, pods stay as last known for a minute. Where it stays away longer or refuses, nothing
    is known of that namespace, because what was known would not be put right.
    """

    def __init__(
        self,
        places: Collection[str | None],
        moved: Callable[[Collection[Resource]], None],
        watched: Callable[[bool], None],
    ) -> None:
        """`watched` is told if the slices of each namespace are watched."""
        self._moved = moved
        self._watched = watched
        self._slices: dict[Resource, Slice] = {}
        self._of: dict[Resource, dict[Resource, Slice]] = {}  # by Service, and then by their own name
        self._pods: dict[Resource, Pods] = {}
        self._refused: dict[str | None, str] = {}  # by namespace: why
        self._clock = asyncio.get_running_loop().time
        self._lost: dict[str | None, float] = dict.fromkeys(places, self._clock())  # since when
        self._unasked: set[str | None] = set(places)
        self._all_asked = asyncio.Event()

    async def asked(self) -> None:
        """Waits until the slices of each namespace are listed, or cannot be had.

        They cannot be had when the API server refuses them, or has been away for _TRUSTED_S.
        """
        await self._all_asked.wait()

    def pods(self, service: Resource) -> Pods | None:
        """Returns the ready pods. None means that they are not known, because nobody tells of any slice of this
        Service.
        """
        if self._refused and (None in self._refused or service.namespace in self._refused):
            return None
        return self._pods.get(service)

    @property
    def note(self) -> str | None:
        """Returns what an operator should know, and None while all is well."""
        if not self._refused:
            return None
        places = ", ".join(sorted(place or "all namespaces" for place in self._refused))
        return f"requests go to Services, because EndpointSlices cannot be watched in {places}"

    # What the reflectors tell.

    def listed(self, namespace: str | None, objects: list[Object]) -> None:
        found = {own_name(obj): obj for obj in objects}
        gone = [own for own in self._slices if namespace in (None, own.namespace) and own not in found]
        touched = {self._forget(own) for own in gone}
        touched |= {service for obj in objects for service in self._take(obj)}
        self._report_changes(touched)
        if namespace in self._lost:
            self._lost[namespace] = self._clock()
        self._known_again(namespace)
        self._has_answered(namespace)

    def changed(self, namespace: str | None, obj: Object) -> None:
        self._report_changes(self._take(obj))

    def deleted(self, namespace: str | None, obj: Object) -> None:
        own = own_name(obj)
        if own in self._slices:
            self._report_changes([self._forget(own)])

    def in_touch(self, namespace: str | None) -> None:
        if namespace in self._lost:
            del self._lost[namespace]
            self._watched(not self._lost)
            self._known_again(namespace)

    def out_of_touch(self, namespace: str | None, problem: KubeError) -> None:
        if namespace not in self._lost:
            self._lost[namespace] = self._clock()
            self._watched(False)
        told = {"namespace": namespace, "status": problem.status, "cause": str(problem)}
        if not is_unseen(problem) and self._clock() - self._lost[namespace] < _TRUSTED_S:
            _log.warning("EndpointSlices cannot be watched; the pods of Models stay as last known", extra=told)
            return
        if namespace not in self._refused:
            self._refused[namespace] = str(problem)
            _log.warning("EndpointSlices cannot be watched; requests go to the Services of Models", extra=told)
            self._moved(self._services(namespace))
        self._has_answered(namespace)

    # Inside.

    def _take(self, obj: Object) -> set[Resource]:
        """Takes one slice in, and returns the Services that it changes something for."""
        found, own = read(obj), own_name(obj)
        before = self._slices.get(own)
        touched = set()
        if before is not None and (found is None or found.service != before.service):
            touched.add(self._forget(own))
        if found is not None and found != before:
            self._slices[own] = found
            self._of.setdefault(found.service, {})[own] = found
            touched.add(found.service)
        return touched

    def _forget(self, own: Resource) -> Resource:
        service = self._slices.pop(own).service
        left = self._of[service]
        del left[own]
        if not left:
            del self._of[service]
        return service

    def _known_again(self, namespace: str | None) -> None:
        """Counts what was known of the namespace again, because it was listed or its watch goes on where it broke
        off.
        """
        if self._refused.pop(namespace, None) is not None:
            _log.info("pods of Models are known again", extra={"namespace": namespace})
            self._moved(self._services(namespace))

    def _services(self, namespace: str | None) -> list[Resource]:
        return [service for service in self._pods if namespace in (None, service.namespace)]

    def _report_changes(self, touched: Iterable[Resource]) -> None:
        moved = [service for service in touched if self._look(service)]
        if moved:
            self._moved(moved)

    def _look(self, service: Resource) -> bool:
        """Computes the ready addresses of a Service anew. Returns whether they have changed."""
        before, slices = self._pods.get(service), self._of.get(service)
        if slices is None:
            return self._pods.pop(service, None) is not None
        addresses = ready_addresses(slices.values())
        if before is not None and before.addresses == addresses:
            return False
        self._pods[service] = Pods(addresses, None if addresses else datetime.now(UTC))
        return True

    def _has_answered(self, namespace: str | None) -> None:
        self._unasked.discard(namespace)
        if not self._unasked:
            self._all_asked.set()
