"""A Model is read as the API server hands it out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from .names import (
    ANNOTATION_LAST_REQUEST_AT,
    ANNOTATION_WAKE_REQUESTED_AT,
    API_VERSION,
    KIND,
    MAX_NAME_LENGTH,
)
from .part import Observed, Part, Rule
from .spec import ModelSpec
from .status import ModelStatus

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class FieldError:
    """`path` is written as operators write it, `spec.gpu.perReplica`."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class InvalidModel(Exception):
    """The object is no valid Model; the message names the fields at fault."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


class ObjectMeta(Observed):
    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdapterNames:
    """A LoRA adapter is called `name` in the resource. Clients call it by one of `names`, whose first is its id."""

    name: str
    names: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.names[0]


class Model(Part):
    """A language model that the platform serves."""

    api_version: Literal["cloudach.dev/v1alpha1"] = API_VERSION
    kind: Literal["Model"] = KIND
    metadata: ObjectMeta
    spec: ModelSpec
    status: ModelStatus = ModelStatus()

    rules = (
        Rule(
            f"metadata.name must begin with a letter, hold only a-z, 0-9 and -, and be at most {MAX_NAME_LENGTH} long, "
            "for it names a RayService and its Services: put any other name into spec.id",
            f"self.metadata.name.size() <= {MAX_NAME_LENGTH}"
            " && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            lambda it: len(it.metadata.name) <= MAX_NAME_LENGTH and _NAME.fullmatch(it.metadata.name) is not None,
        ),
        Rule(
            "aliases must not hold the model's id (spec.id, or metadata.name without it)",
            "!has(self.spec.aliases)"
            " || !((has(self.spec.id) ? self.spec.id : self.metadata.name) in self.spec.aliases)",
            lambda it: it.id not in it.spec.aliases,
            ".spec.aliases",
        ),
        Rule(
            "an adapter must not be called as the model is (its id, or an alias)",
            "!has(self.spec.lora) || self.spec.lora.adapters.all(a, !has(a.id)"
            " || (a.id != (has(self.spec.id) ? self.spec.id : self.metadata.name)"
            " && (!has(self.spec.aliases) || !(a.id in self.spec.aliases))))",
            lambda it: not {a.id for a in it.spec.adapters} & set(it.names),
            ".spec.lora.adapters",
        ),
        Rule(
            "an adapter's id must not be what another one is called (<model id or alias>:<name>)",
            # Taken apart, as below.
            "!has(self.spec.lora) || self.spec.lora.adapters.all(a, !has(a.id) || a.id.lastIndexOf(':') < 1"
            " || (a.id.substring(0, a.id.lastIndexOf(':')) != (has(self.spec.id) ? self.spec.id : self.metadata.name)"
            " && (!has(self.spec.aliases) || !(a.id.substring(0, a.id.lastIndexOf(':')) in self.spec.aliases)))"
            " || !self.spec.lora.adapters.exists(b, b.name != a.name"
            " && b.name == a.id.substring(a.id.lastIndexOf(':') + 1)))",
            lambda it: (
                not any(
                    a.id == f"{name}:{b.name}" and a.name != b.name
                    for a in it.spec.adapters
                    for b in it.spec.adapters
                    for name in it.names
                )
            ),
            ".spec.lora.adapters",
        ),
        Rule(
            "aliases must not hold what an adapter is called (<model id>:<name>)",
            # Taken apart, not put together: what the API server thinks a text of two others costs is too much for it.
            "!has(self.spec.lora) || !has(self.spec.aliases) || self.spec.aliases.all(x, x.lastIndexOf(':') < 1"
            " || x.substring(0, x.lastIndexOf(':')) != (has(self.spec.id) ? self.spec.id : self.metadata.name)"
            " || !self.spec.lora.adapters.exists(a, a.name == x.substring(x.lastIndexOf(':') + 1)))",
            lambda it: not {f"{it.id}:{a.name}" for a in it.spec.adapters} & set(it.spec.aliases),
            ".spec.aliases",
        ),
    )

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Model:
        """Reads the API server's JSON, as parsed. Raises InvalidModel."""
        try:
            # As JSON, for there a list is what Python calls a tuple, and a string is no number.
            return cls.model_validate_json(json.dumps(obj))
        except ValidationError as error:
            raise InvalidModel(tuple(_field_error(details) for details in error.errors(include_url=False))) from None

    @property
    def id(self) -> str:
        """Returns the name that clients use."""
        return self.spec.id or self.metadata.name

    @property
    def names(self) -> tuple[str, ...]:
        """Returns its id, then its aliases."""
        return (self.id, *self.spec.aliases)

    @property
    def upstream_model(self) -> str:
        """Returns the name that its engines answer to. It is not the id, so a new id restarts no engine."""
        return self.metadata.name

    @property
    def adapters(self) -> tuple[AdapterNames, ...]:
        return tuple(
            AdapterNames(
                adapter.name,
                ((adapter.id,) if adapter.id is not None else ())
                + tuple(f"{name}:{adapter.name}" for name in self.names),
            )
            for adapter in self.spec.adapters
        )

    @property
    def wake_requested_at(self) -> datetime | None:
        """Returns when it was last wanted awake, by its status or its annotation. An annotation that holds no time does
        not count.
        """
        annotated = _moment(self.metadata.annotations.get(ANNOTATION_WAKE_REQUESTED_AT))
        return latest(annotated, self.status.wake_requested_at)

    @property
    def last_request_at(self) -> datetime | None:
        """Returns None also when the annotation holds no time."""
        return _moment(self.metadata.annotations.get(ANNOTATION_LAST_REQUEST_AT))


def latest(*moments: datetime | None) -> datetime | None:
    """Returns the latest moment; None if all of them are None."""
    return max((moment for moment in moments if moment is not None), default=None)


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _field_error(details: Any) -> FieldError:
    path = ""
    for step in details["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    message = details["msg"]
    if details["type"] == "rule":
        path += details["ctx"]["field"]
    elif details["type"] == "extra_forbidden":
        message = "there is no such field"
    return FieldError(path.lstrip(".") or "metadata.name", message[0].lower() + message[1:])
