"""Pydantic's JSON schema becomes the structural schema that a CRD takes: no references, no null, no titles."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_DROPPED = {"title", "$ref", "$defs", "propertyNames", "const", "anyOf", "default"}


def structural(model: type[BaseModel]) -> Schema:
    """Raises ValueError where the type holds something that a structural schema cannot say."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}), model.__name__)


def _convert(schema: Schema, defs: dict[str, Schema], where: str) -> Schema:
    schema = _resolved(schema, defs, where)
    out: Schema = {}
    if description := schema.get("description"):
        out["description"] = " ".join(description.split())
    if "type" in schema:
        out["type"] = schema["type"]
    for key, value in schema.items():
        if key in _DROPPED or key in out:
            continue
        if key == "properties":
            out[key] = {name: _convert(part, defs, f"{where}.{name}") for name, part in value.items()}
        elif key == "items":
            out[key] = _convert(value, defs, f"{where}[]")
        elif key == "additionalProperties":
            if isinstance(value, dict):
                out[key] = _convert(value, defs, f"{where}.*")
        else:
            out[key] = value
    if "const" in schema:
        out["enum"] = [schema["const"]]
    if out.get("x-kubernetes-int-or-string"):
        if "anyOf" in schema:
            out["anyOf"] = schema["anyOf"]
    elif "type" not in out:
        raise ValueError(f"{where}: a structural schema needs one type, not {schema}")
    default = schema.get("default")
    if isinstance(default, dict):
        # Only to have the defaults inside it filled in; anything more would be shown in every object.
        if _has_defaults(out):
            out["default"] = {}
    elif default is not None and default != []:
        out["default"] = default
    return out


def _resolved(schema: Schema, defs: dict[str, Schema], where: str) -> Schema:
    """Resolves `$ref`, and drops the `null` of an optional field, because in a CRD such a field is left out."""
    if options := schema.get("anyOf"):
        some = [option for option in options if option != {"type": "null"}]
        if len(some) < len(options):
            if len(some) != 1:
                raise ValueError(f"{where}: a union of {len(some)} types")
            schema = {**some[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
    if reference := schema.get("$ref"):
        target = defs[reference.removeprefix("#/$defs/")]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        return _resolved(schema, defs, where)
    return schema


def _has_defaults(schema: Schema) -> bool:
    return any("default" in part for part in schema.get("properties", {}).values())
