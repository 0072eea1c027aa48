"""Some of the watched namespaces are being deleted. Their Models are let go here, so that they hold nothing up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Protocol

from cloudach_kube.errors import Conflict, KubeError, NotFound
from cloudach_kube.kinds import NAMESPACES, Kind
from cloudach_model_api.names import FINALIZER

from ..kinds import MODELS

log = logging.getLogger(__name__)

_PAUSE_S = 0.2


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
                log.debug("a namespace could not be read", extra={"namespace": namespace, "error": str(error)})
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
        """Removes our finalizer from the Models in those namespaces that are being deleted. It logs a KubeError."""
        for namespace in namespaces:
            if await self.is_ending(namespace):
                try:
                    await self.let_go(namespace)
                except KubeError as error:
                    extra = {"namespace": namespace, "error": str(error)}
                    log.warning(
                        "Models could not be released, and keep their namespace from being deleted", extra=extra
                    )

    async def _release(self, model: dict[str, Any]) -> None:
        meta = model["metadata"]
        left = [each for each in meta["finalizers"] if each != FINALIZER]
        body = {"metadata": {"finalizers": left, "resourceVersion": meta["resourceVersion"]}}
        await self._api.merge(MODELS, meta["namespace"], meta["name"], body)
        log.info(
            "Model released, because its namespace is being deleted",
            extra={"model": f"{meta['namespace']}/{meta['name']}"},
        )
