"""One model as routing needs it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from ..settings import Model


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """The Model resource that a model comes from."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Why(StrEnum):
    """Why a model cannot be asked."""

    ASLEEP = "asleep"  # a request wakes it
    STARTING = "starting"
    OFF = "off"  # on purpose; no request wakes it
    STUCK = "stuck"  # an operator has to look


@dataclass(frozen=True, slots=True)
class Absence:
    """`since`: when it began, as far as is known. `detail`: the operator's words, for the log alone."""

    why: Why
    since: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model. `names` is its id and then its aliases; upstreams are base URLs without /v1.

    absence: None while it can be asked. sleeps: whether it is put to sleep when nobody asks for it; a request waits for
    such a one. resource: None for a model of the configuration file.
    """

    id: str
    names: tuple[str, ...]
    upstreams: tuple[str, ...]
    upstream_model: str
    api_key: str | None
    dialect: Literal["vllm", "openai"]
    max_model_len: int | None
    created: int
    absence: Absence | None = None
    sleeps: bool = False
    resource: Resource | None = None

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
