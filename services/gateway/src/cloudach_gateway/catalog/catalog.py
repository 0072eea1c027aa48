"""All models, found by id or alias: those of the configuration file, and those of the cluster, which come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..errors import GatewayError, ModelNotFound, ModelNotReady
from .served import Resource, ServedModel

_UNKNOWN_S = 5.0


class Catalog:
    """All models by name. `complete` is False until those of the cluster are known; a missing name proves nothing then.

    A request keeps the view of its model that it has found, for as long as it lasts. When it needs an engine, it asks
    for the `current` one.
    """

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._from_file = {name: model for model in models for name in model.names}
        self._by_name = dict(self._from_file)
        self._leaving: dict[tuple[Resource | None, str], ServedModel] = {}
        self._listeners: dict[object, tuple[ServedModel, Callable[[], None]]] = {}
        self.complete = True

    @property
    def reserved(self) -> frozenset[str]:
        """Returns the names of the configuration file, which win over the cluster's."""
        return frozenset(self._from_file)

    def find(self, name: str) -> ServedModel | None:
        return self._by_name.get(name)

    def current(self, model: ServedModel) -> ServedModel:
        """Returns the model as it is now. Once nothing is known of it any more, returns it as it was."""
        found = self._by_name.get(model.id)
        if found is not None and found.resource == model.resource:
            return found
        return self._leaving.get((model.resource, model.id), model)

    def missing(self, name: str) -> GatewayError:
        """Returns the error for a request whose model is not here."""
        if self.complete:
            return ModelNotFound(name)
        return ModelNotReady(
            f"Whether there is a model `{name}` is not known yet.",
            retry_after_s=_UNKNOWN_S,
            cause="the API server has not been reached since the start",
        )

    def __iter__(self) -> Iterator[tuple[str, ServedModel]]:
        """Yields every name with its model, a model's id before its aliases."""
        return iter(self._by_name.items())

    def replace(self, models: Iterable[ServedModel], leaving: Iterable[ServedModel] = ()) -> None:
        """Takes over all of the cluster's models; none has a `reserved` name.

        Those `leaving` take no new requests, while earlier requests of theirs still run.
        """
        before = self._seen()
        self._by_name = self._from_file | {name: model for model in models for name in model.names}
        self._leaving = {(model.resource, model.id): model for model in leaving}
        self._notify(before)

    def put(self, models: Iterable[ServedModel]) -> None:
        """Replaces some of the cluster's models by their newer form, under the names that they have. Others stay."""
        before = self._seen()
        for model in models:
            if (model.resource, model.id) in self._leaving:
                self._leaving[model.resource, model.id] = model
            else:
                self._by_name.update(dict.fromkeys(model.names, model))
        self._notify(before)

    @contextmanager
    def on_change(self, model: ServedModel, changed: Callable[[], None]) -> Iterator[None]:
        """Calls `changed` after each change of this model, while the block runs."""
        mark = object()
        self._listeners[mark] = model, changed
        try:
            yield
        finally:
            del self._listeners[mark]

    def _seen(self) -> list[tuple[ServedModel, ServedModel | None, Callable[[], None]]]:
        return [(model, self._by_name.get(model.id), changed) for model, changed in self._listeners.values()]

    def _notify(self, before: list[tuple[ServedModel, ServedModel | None, Callable[[], None]]]) -> None:
        for model, seen, changed in before:
            if seen is None or self._by_name.get(model.id) is not seen:
                changed()
