"""The models of the configuration file, found by id or alias."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..settings import Model


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as routing needs it. `names` is its id and then its aliases; upstreams are base URLs without /v1."""

    id: str
    names: tuple[str, ...]
    upstreams: tuple[str, ...]
    upstream_model: str
    api_key: str | None
    dialect: Literal["vllm", "openai"]
    max_model_len: int | None
    created: int

    @classmethod
    def from_settings(cls, model: Model) -> ServedModel:
        return cls(
            id=model.id,
            names=(model.id, *model.aliases),
            upstreams=model.upstreams,
            upstream_model=model.upstream_model or model.id,
            api_key=model.api_key,
            dialect=model.dialect,
            max_model_len=model.max_model_len,
            created=int(time.time()),
        )


class Catalog:
    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._by_name = {name: model for model in models for name in model.names}

    def find(self, name: str) -> ServedModel | None:
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[tuple[str, ServedModel]]:
        """Every name with its model, a model's id before its aliases."""
        return iter(self._by_name.items())
