"""A request may have to wait at one of these gates: for any engine, for one of its own, for one not tried yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from ...catalog import ServedModel
from ...errors import GatewayError
from .fleet import Engines


class Place(NamedTuple):
    """An upstream of the model as it is at that moment."""

    model: ServedModel
    upstream: str


InVain = Callable[[], GatewayError | None]
"""Why no engine of the model will come any more, as when it was switched off; None while one may."""


class _OfOneModel:
    """A gate to the engines of one model. `tried` are the upstreams that the request has been to."""

    def __init__(self, engines: Engines, model: ServedModel, tried: list[str], in_vain: InVain) -> None:
        self._engines = engines
        self._asked = model
        self._tried = tried
        self._in_vain = in_vain

    def news(self, look_again: Callable[[], None]) -> AbstractContextManager[None]:
        return self._engines.directory.on_change(self._asked, look_again)


class AnyEngine(_OfOneModel):
    """Opens when the model has an engine."""

    kind = "engine"

    def look(self) -> Place | None:
        model = self._engines.directory.current(self._asked)
        upstream = self._engines.pick(model, self._tried)
        if upstream is not None:
            return Place(model, upstream)
        _raise(self._in_vain())
        return None


class EngineOfItsOwn(_OfOneModel):
    """Opens when there is an engine at which the request is the only one that may be what ends engines."""

    kind = "quarantine"

    def look(self) -> Place | None:
        model = self._engines.directory.current(self._asked)
        upstream = self._engines.pick_for_one_alone(model, self._tried)
        if upstream is not None:
            return Place(model, upstream)
        if not model.upstreams:
            _raise(self._in_vain())
        return None

    @contextmanager
    def news(self, look_again: Callable[[], None]) -> Iterator[None]:
        with (
            self._engines.quarantine.waiting(look_again),
            self._engines.directory.on_change(self._asked, look_again),
        ):
            yield


class UntriedEngine(_OfOneModel):
    """Opens when the model has an upstream that the request has not been to."""

    kind = "another_engine"

    def look(self) -> bool | None:
        if not {*self._engines.directory.current(self._asked).upstreams} <= {*self._tried}:
            return True
        _raise(self._in_vain())
        return None


def _raise(error: GatewayError | None) -> None:
    if error is not None:
        raise error
