"""A model's context length is the most tokens of a prompt and its answer. The settings say it, or else the engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson

from ...catalog import ServedModel

_AGAIN_S = 10.0
_FRESH_S = 300.0  # a rolling change of the engines may change it
_MOST = 4096  # models that are remembered; they come and go

_Key = tuple[str, int]  # id and time of creation: another model may come under an old name

Fetch = Callable[[ServedModel, str], Awaitable[bytes | None]]


class ContextLengths:
    """A length is learned when its model is used, so that it is known once the engines are gone.

    It is learned anew once in a while.
    """

    def __init__(self, fetch_models: Fetch, *, patience_s: float) -> None:
        """`fetch_models` returns an upstream's answer to GET /v1/models, None without one."""
        self._fetch_models = fetch_models
        self._patience_s = patience_s
        self._known: dict[_Key, int] = {}
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._not_before: dict[_Key, float] = {}

    def learn(self, model: ServedModel) -> None:
        """It asks an engine of the model in the background, unless one was asked lately."""
        if model.max_model_len is not None or not model.speaks.states_context:
            return
        key = _key(model)
        if asyncio.get_running_loop().time() >= self._not_before.get(key, 0.0) and key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._learn(model), name=f"context length of {model.id}")

    async def of(self, model: ServedModel, *, patience_s: float | None = None) -> int | None:
        """The model's context length. It waits for an engine's answer if need be; None if none has come by then."""
        if model.max_model_len is not None:
            return model.max_model_len
        if model.absence is None:  # otherwise there is nobody to ask
            self.learn(model)
        key = _key(model)
        task = self._tasks.get(key)
        if task is not None and key not in self._known:
            await asyncio.wait({task}, timeout=self._patience_s if patience_s is None else patience_s)
        return self._known.get(key)

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def _learn(self, model: ServedModel) -> None:
        key, again_s = _key(model), _AGAIN_S
        try:
            for upstream in model.upstreams:
                listed = await self._fetch_models(model, upstream)
                found = None if listed is None else _listed_length(listed, model.upstream_model)
                if found is not None:
                    self._known[key], again_s = found, _FRESH_S
                    break
            self._not_before[key] = asyncio.get_running_loop().time() + again_s
            for known in (self._known, self._not_before):
                if len(known) > _MOST:
                    del known[next(iter(known))]
        finally:
            del self._tasks[key]


def _key(model: ServedModel) -> _Key:
    return model.id, model.created


def _listed_length(models: bytes, name: str) -> int | None:
    """The `max_model_len` of a model in vLLM's /v1/models. A LoRA adapter has its parent's."""
    try:
        cards = {model.get("id"): model for model in orjson.loads(models)["data"]}
        card = cards.get(name, {})
        for found in (card, cards.get(card.get("parent"), {})):
            length = found.get("max_model_len")
            if isinstance(length, int) and length > 0:
                return length
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        pass
    return None
