"""Reads the API keys that engines of Models demand. A Model's status has the key's id, and a Secret has the key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from cloudach_kube.client import Object
from cloudach_kube.errors import KubeError
from cloudach_model_api import Model
from cloudach_model_api.keys import ENGINE_KEYS_SECRET, key_of

from ..served import Resource
from .entries import absence, resource

_log = logging.getLogger("cloudach.gateway")

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0

Read = Callable[[str, str], Awaitable[Object]]
"""The Secret of this namespace and name. Raises KubeError."""


class EngineKeys:
    """`learned` is called when there are new keys. What was known of a Model holds until its new key has been read."""

    def __init__(self, read: Read, learned: Callable[[], None]) -> None:
        self._read = read
        self._learned = learned
        self._keys: dict[Resource, str | None] = {}
        self._open: set[Resource] = set()  # Models that can be asked without a key
        self._wanted: dict[Resource, str] = {}  # ids, as the Models say them
        self._had: dict[Resource, str] = {}  # the id for which the key was read
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by namespace

    @property
    def keys(self) -> Mapping[Resource, str | None]:
        """Returns what to send. None means nothing, as before. The key of a Model that is not in here has to be read
        first.
        """
        return self._keys

    async def settled(self) -> None:
        """Waits until nothing is being read."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    def restore(self, keys: Mapping[Resource, str | None]) -> None:
        """Takes over the keys as they were known before a restart."""
        self._keys.update(keys)

    def follow(self, found: Iterable[Model]) -> None:
        """Has the keys read that these Models speak of, and forgets those of all others."""
        models = {resource(model): model for model in found}
        self._wanted = {own: model.status.engine_key for own, model in models.items() if model.status.engine_key}
        # Those that ran without a lock are to get one with their next pods: what runs goes on without.
        self._keys.update((own, None) for own in self._wanted.keys() & self._open if own not in self._keys)
        self._open = {own for own in models.keys() - self._wanted.keys() if absence(models[own]) is None}
        for own in self._keys.keys() - self._wanted.keys():
            del self._keys[own]
        for own in self._had.keys() - self._wanted.keys():
            del self._had[own]
        for namespace in {own.namespace for own in self._missing()} - self._tasks.keys():
            self._tasks[namespace] = asyncio.create_task(self._fetch(namespace), name=f"engine keys of {namespace}")

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _missing(self, namespace: str | None = None) -> list[Resource]:
        return [
            own
            for own, wanted in self._wanted.items()
            if self._had.get(own) != wanted and namespace in (None, own.namespace)
        ]

    async def _fetch(self, namespace: str) -> None:
        pause = _FIRST_PAUSE_S
        try:
            while missing := self._missing(namespace):
                wanted = {own: self._wanted[own] for own in missing}
                problem = await self._take(namespace, wanted)
                if problem:
                    _log.warning("API keys of engines cannot be read", extra={"namespace": namespace, "cause": problem})
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_S)
        finally:
            del self._tasks[namespace]
        self._learned()

    async def _take(self, namespace: str, wanted: Mapping[Resource, str]) -> str:
        """Reads the Secret. Returns what went wrong, and nothing when all keys were found.

        The Secret may be newer than a Model's id, and then it is right.
        """
        try:
            secret = await self._read(namespace, ENGINE_KEYS_SECRET)
        except KubeError as error:
            return str(error)
        without = []
        for own, wanted_id in wanted.items():
            key = key_of(secret, own.name)
            if key is None:
                without.append(own.name)
            else:
                self._keys[own], self._had[own] = key, wanted_id
        if not without:
            return ""
        if len(without) < len(wanted):
            self._learned()
        return f"{ENGINE_KEYS_SECRET} has no entry for {', '.join(sorted(without)[:10])}"
