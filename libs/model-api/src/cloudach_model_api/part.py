"""Every part of a Model has this base: camelCase in YAML, strict types, and rules that the API server knows too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from annotated_types import GroupedMetadata
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError


def list_map(key: str) -> dict[str, Any]:
    """Returns the schema of a list whose entries are told apart by `key`. The API server merges them one by one, and
    refuses twins.
    """
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def left_out(schema: dict[str, Any]) -> None:
    """Keeps a default out of the CRD. It is the `json_schema_extra` of fields that came after version 0.1.

    The API server adds a CRD's defaults to every object that it hands out. The controller of a release before the field
    refuses it. Each Model would be invalid from the CRD's upgrade to the chart's, and after a rollback.
    """
    schema.pop("default", None)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule is given in CEL for the API server, and as `check` for programs that read a Model from elsewhere.

    `message` tells the operator what to do. `field` is the path of the wrong field below the part, as `.id`; empty for
    the part itself. `cel` is None where the schema says it already (keys of a list). `check` is None for a rule about a
    change (CEL's oldSelf), which a single object cannot break.
    """

    message: str
    cel: str | None
    check: Callable[[Any], bool] | None
    field: str = ""

    def to_schema(self) -> dict[str, str]:
        assert self.cel is not None
        schema = {"rule": self.cel, "message": self.message}
        return schema | {"fieldPath": self.field} if self.field else schema


def text(pattern: str, advice: str, *, least: int = 0, most: int) -> Any:
    """Returns a string type with this pattern (RE2), for `Annotated`.

    The API server, too, answers a wrong value with `advice` instead of the pattern. `least` and `most` bound the
    length.
    """
    # Python's `$` would let a line feed at the end pass.
    compiled = re.compile(re.sub(r"\$$", r"\\Z", pattern))

    def check(value: str) -> str:
        if not compiled.search(value):
            raise PydanticCustomError("advice", "{advice}", {"advice": advice})
        return value

    schema: dict[str, Any] = {"type": "string", "maxLength": most} | ({"minLength": least} if least else {})
    schema["x-kubernetes-validations"] = [{"rule": f"self.matches(r'{pattern}')", "message": advice}]
    return _Text(Field(min_length=least, max_length=most), AfterValidator(check), WithJsonSchema(schema))


class _Text(GroupedMetadata):
    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[object]:
        return iter(self._parts)


class Part(BaseModel):
    """Raises pydantic's ValidationError for a wrong type, an unknown field or a broken rule."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Any:
        for rule in self.rules:
            if rule.check is not None and not rule.check(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.message, "field": rule.field})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        reference = handler(core_schema)
        rules = [rule.to_schema() for rule in cls.rules if rule.cel is not None]
        if rules:
            handler.resolve_ref_schema(reference)["x-kubernetes-validations"] = rules
        return reference


class Observed(BaseModel):
    """Other programs write this part, so fields that are not known here are passed over."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )
