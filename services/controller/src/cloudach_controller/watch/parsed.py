"""Models are parsed from their objects once per version."""

from __future__ import annotations

from typing import Any

from cloudach_model_api.model import InvalidModel, Model

from ..key import Key


class Parsed:
    """This remembers what was parsed. It tells two versions apart by the identity of the object that the informer
    holds.
    """

    def __init__(self) -> None:
        self._held: dict[Key, tuple[dict[str, Any], Model | InvalidModel]] = {}

    def model(self, key: Key, obj: dict[str, Any]) -> Model:
        """Raises InvalidModel."""
        held = self._held.get(key)
        if held is None or held[0] is not obj:
            held = self._held[key] = obj, _read(obj)
        if isinstance(held[1], InvalidModel):
            raise held[1]
        return held[1]

    def forget(self, key: Key) -> None:
        self._held.pop(key, None)


def _read(obj: dict[str, Any]) -> Model | InvalidModel:
    try:
        return Model.from_object(obj)
    except InvalidModel as error:
        return error
