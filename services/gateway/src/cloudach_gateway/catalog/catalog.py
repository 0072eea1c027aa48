"""All models, found by id or alias: those of the configuration file, and those of the cluster, which come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..errors import GatewayError, ModelNotFound, ModelNotReady
from .served import ServedModel

_UNKNOWN_S = 5.0


class Catalog:
    """`complete`: whether a name that is not here is no model; False until the cluster's are known.

    Who found a model keeps that view of it for as long as its request lasts.
    """

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._from_file = {name: model for model in models for name in model.names}
        self._by_name = self._from_file
        self._told: dict[object, Callable[[], None]] = {}
        self.complete = True

    @property
    def reserved(self) -> frozenset[str]:
        """The names of the configuration file, which win over the cluster's."""
        return frozenset(self._from_file)

    def find(self, name: str) -> ServedModel | None:
        return self._by_name.get(name)

    def missing(self, name: str) -> GatewayError:
        """What a request for a name that is not here gets."""
        if self.complete:
            return ModelNotFound(name)
        return ModelNotReady(
            f"Whether there is a model `{name}` is not known yet.",
            retry_after_s=_UNKNOWN_S,
            cause="the API server has not been reached since the start",
        )

    def __iter__(self) -> Iterator[tuple[str, ServedModel]]:
        """Every name with its model, a model's id before its aliases."""
        return iter(self._by_name.items())

    def replace(self, models: Iterable[ServedModel]) -> None:
        """The cluster's models, all of them; none has a `reserved` name."""
        self._by_name = self._from_file | {name: model for model in models for name in model.names}
        for tell in list(self._told.values()):
            tell()

    @contextmanager
    def telling(self, changed: Callable[[], None]) -> Iterator[None]:
        """`changed` is called after each change."""
        mark = object()
        self._told[mark] = changed
        try:
            yield
        finally:
            del self._told[mark]
