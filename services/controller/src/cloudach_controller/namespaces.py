"""Some of the watched namespaces cannot be read, and some are being deleted. This module tells which, and lets the
Models of the latter go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cloudach_kube.errors import Conflict, KubeError, NotFound
from cloudach_kube.kinds import NAMESPACES, Kind
from cloudach_model_api.names import FINALIZER

from .kube.kinds import MODELS
from .runtime.informer import Informer

log = logging.getLogger(__name__)

_PAUSE_S = 0.2


@dataclass(slots=True)
class Space:
    """A space holds the watches in one namespace, or in all of them if `namespace` is None."""

    namespace: str | None
    informers: Sequence[Informer]
    worked_on: bool = False

    @property
    def name(self) -> str:
        return self.namespace or "*"

    @property
    def begun(self) -> bool:
        """Tells if everything in it was seen. Before that, a missing RayService would be taken for deleted."""
        return all(each.synced.is_set() for each in self.informers)

    @property
    def refused(self) -> str:
        """Returns the API server's words if it does not let us read the namespace."""
        return next((each.refused for each in self.informers if each.refused), "")


def why_unready(spaces: Iterable[Space]) -> str:
    """Returns an empty text when the controller works. One namespace that cannot be read makes it no less ready for the
    others.
    """
    spaces = tuple(spaces)
    waiting = sum(not each.begun and not each.refused for each in spaces)
    if waiting:
        return f"the watches of {waiting} namespaces have not begun"
    return "" if any(each.begun for each in spaces) else notes(spaces)


def notes(spaces: Iterable[Space]) -> str:
    """Returns one line for each namespace that cannot be read."""
    return "\n".join(f"namespace {each.name} cannot be read: {each.refused}" for each in spaces if each.refused)


class Api(Protocol):
    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]: ...
    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[dict[str, Any]], str]: ...
    async def merge(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]: ...


class Endings:
    """This class removes our finalizers from the Models of a namespace that is being deleted, so that they hold nothing
    up.

    Its pods, RayServices and Roles go whatever we do, and pods let their streams run out by themselves.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    async def is_ending(self, namespace: str) -> bool:
        """Tells if the namespace is being deleted, which nothing can undo. If it cannot be read, the answer is no."""
        try:
            found = await self._api.get(NAMESPACES, None, namespace)
        except KubeError as error:
            if not isinstance(error, NotFound):
                log.debug("namespace not read", extra={"namespace": namespace, "error": str(error)})
            return False
        return bool(found["metadata"].get("deletionTimestamp"))

    async def is_gone(self, namespace: str) -> bool:
        """Tells if there is no such namespace. If the API server does not tell, the answer is no."""
        try:
            await self._api.get(NAMESPACES, None, namespace)
        except NotFound:
            return True
        except KubeError:
            pass
        return False

    async def let_go(self, namespace: str) -> None:
        """Removes our finalizer from all Models of the namespace. Raises KubeError."""
        while True:
            models, _ = await self._api.list(MODELS, namespace)
            held = [each for each in models if FINALIZER in (each["metadata"].get("finalizers") or ())]
            if not held:
                return
            for model in held:
                try:
                    await self._release(model)
                except NotFound:
                    pass
                except Conflict:
                    await asyncio.sleep(_PAUSE_S)

    async def let_go_of_ending(self, namespaces: Iterable[str]) -> None:
        """Releases the Models of those namespaces that are being deleted. Raises nothing."""
        for namespace in namespaces:
            if await self.is_ending(namespace):
                try:
                    await self.let_go(namespace)
                except KubeError as error:
                    extra = {"namespace": namespace, "error": str(error)}
                    log.warning("Models hold up the end of their namespace", extra=extra)

    async def _release(self, model: dict[str, Any]) -> None:
        meta = model["metadata"]
        left = [each for each in meta["finalizers"] if each != FINALIZER]
        body = {"metadata": {"finalizers": left, "resourceVersion": meta["resourceVersion"]}}
        await self._api.merge(MODELS, meta["namespace"], meta["name"], body)
        log.info("let go with its namespace", extra={"model": f"{meta['namespace']}/{meta['name']}"})
