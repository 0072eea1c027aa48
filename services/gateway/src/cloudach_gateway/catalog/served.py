"""One model as routing needs it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

from ..settings import Model
from .dialects import DIALECTS, Dialect


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """The Model resource that a model comes from."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Why(StrEnum):
    """The reason why a model cannot be asked."""

    ASLEEP = "asleep"  # a request wakes it
    STARTING = "starting"
    NO_ENDPOINT = "no_endpoint"  # its engines run, and no pod takes requests at the moment
    OFF = "off"  # on purpose; no request wakes it
    STUCK = "stuck"  # an operator has to look


@dataclass(frozen=True, slots=True)
class Absence:
    """A time in which a model cannot be asked. It began at `since`, as far as is known.

    `detail` has the operator's words, for the log alone. `blocked`: the model waits for something that does not come by
    itself after the usual time, such as a node that has room for it.
    """

    why: Why
    since: datetime | None = None
    detail: str = ""
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for callers of a model: what they may ask for, and who shares its prefix cache.

    `cache_salt`: the requests of one tenant share it, or those of one key, or those of all callers. `pass_unknown`:
    fields that the gateway does not know go to the engine.
    """

    cache_salt: Literal["tenant", "key", "none"] = "tenant"
    pass_unknown: bool = True
    allowed_fields: frozenset[str] = frozenset()
    media_domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model. `names` is its id and then its aliases; upstreams are base URLs without /v1.

    `absence` is None while the model can be asked. One that `sleeps` is put to sleep when nobody asks for it, and a
    request waits until it is awake. `resource` is None for a model of the configuration file. Where each upstream
    reaches every engine, `shared` names what all of them lead to; with None each upstream is one engine. A connection
    to it takes new requests for `connection_s`, or for as long as it is used.
    """

    id: str
    names: tuple[str, ...]
    upstreams: tuple[str, ...]
    upstream_model: str
    api_key: str | None = field(repr=False)
    dialect: Literal["vllm", "openai"]
    max_model_len: int | None
    created: int
    absence: Absence | None = None
    sleeps: bool = False
    resource: Resource | None = None
    parent: str | None = None
    """The id of the model that a LoRA adapter lies over."""
    rules: Rules = Rules()
    shared: str | None = None
    connection_s: float | None = None

    @property
    def speaks(self) -> Dialect:
        return DIALECTS[self.dialect]

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
            rules=Rules(
                cache_salt=model.cache_salt if DIALECTS[model.dialect].takes_salt else "none",
                pass_unknown=model.unknown_fields == "pass",
                allowed_fields=frozenset(model.allowed_fields),
                media_domains=frozenset(model.allowed_media_domains),
            ),
        )

    def adapters(self, model: Model) -> tuple[ServedModel, ...]:
        """Returns the LoRA adapters that the configuration file names for this model, each a model of its own."""
        found = []
        for adapter in model.adapters:
            names = adapter.names(model)
            upstream = adapter.upstream_model or f"{self.upstream_model}:{adapter.name}"
            found.append(replace(self, id=names[0], names=names, upstream_model=upstream, parent=self.id))
        return tuple(found)


def of_file(models: Iterable[Model]) -> Iterator[ServedModel]:
    """Yields the models of the configuration file, adapters after the model that they lie over."""
    for model in models:
        base = ServedModel.from_settings(model)
        yield base
        yield from base.adapters(model)
