"""Finds the smallest value that fits a JSON schema, also one with references among its parts. Pure.

A client that sends a schema may be hostile, so the value is bounded, and so is the work on it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import orjson

from .errors import bad_request

_MOST_STEPS = 10_000
_LONGEST = 100_000
"""The most characters of a string, and items of an array."""
_OF_ANY = 4
"""About how many bytes a value counts for that is neither a text nor given."""
_LARGEST = 1_000_000
"""The most bytes of a whole value, about. Items of arrays within arrays multiply."""


class _Endless(Exception):
    """No finite value fits this part of the schema."""


def instance(schema: object) -> Any:
    """Returns a JSON value that fits the schema.

    Raises Refusal for a schema that no value within the bounds fits, and for a dangling reference.
    """
    try:
        return _Making(schema).value(schema, ())
    except (_Endless, RecursionError):
        # vLLM 0.29 generates up to the limit of tokens, or answers 500 for a schema that is nothing else.
        raise bad_request("Grammar error: The schema refers to itself without an end") from None
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise bad_request(f"Grammar error: {error}") from None


class _Making:
    def __init__(self, root: object) -> None:
        self._root = root
        self._steps = 0
        self._size = 0  # bytes of what has been made, about

    def value(self, schema: object, inside: tuple[str, ...]) -> Any:
        """Returns a value that fits `schema`. Raises _Endless where a `$ref` leads back to itself.

        inside: the `$ref`s that have been followed from the root to here.
        """
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise bad_request("Grammar error: The schema is too complex")
        self._grow(_OF_ANY)
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            reference = schema["$ref"]
            if isinstance(reference, str) and not reference.startswith("#"):
                return "word"  # a schema elsewhere, which nobody fetches: any value fits
            if reference in inside:
                raise _Endless
            return self.value(self._target(reference), (*inside, reference))
        if "const" in schema:
            return self._given(schema["const"])
        if schema.get("enum"):
            return self._given(schema["enum"][0])
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self._first(schema[key], inside)
        if schema.get("allOf"):
            return self.value(schema["allOf"][0], inside)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = kind[0] if kind else "string"
        return self._of_kind(str(kind), schema, inside)

    def _of_kind(self, kind: str, schema: dict[str, Any], inside: tuple[str, ...]) -> Any:
        if kind == "object":
            return self._object(schema, inside)
        if kind == "array":
            return self._array(schema, inside)
        if kind == "string":
            least, most = _size(schema, "minLength", 0), _size(schema, "maxLength", _LONGEST)
            self._grow(max(0, least))
            return "word".ljust(least, "s")[:most]
        if kind in ("integer", "number"):
            return max(1, schema.get("minimum", 1)) if schema.get("maximum", 1) >= 1 else schema["maximum"]
        return {"boolean": True, "null": None}.get(kind, {})

    def _object(self, schema: dict[str, Any], inside: tuple[str, ...]) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required")
        made = {}
        for name in required or list(properties):
            try:
                self._grow(len(name))
                made[name] = self.value(properties.get(name, {"type": "string"}), inside)
            except _Endless:
                if required:
                    raise
        return made

    def _array(self, schema: dict[str, Any], inside: tuple[str, ...]) -> list[Any]:
        least = _size(schema, "minItems", 0)
        before = self._size
        try:
            item = self.value(schema.get("items", {"type": "string"}), inside)
            self._grow((self._size - before) * (max(1, least) - 1))
            return [item] * max(1, least)
        except _Endless:
            if least:
                raise
            return []

    def _given(self, value: Any) -> Any:
        self._grow(len(orjson.dumps(value)))
        return value

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > _LARGEST:
            raise bad_request("Grammar error: The schema asks for too large a value")

    def _first(self, choices: list[object], inside: tuple[str, ...]) -> Any:
        """Returns the smallest of the values that have an end."""
        for choice in choices:
            try:
                return self.value(choice, inside)
            except _Endless:
                continue
        raise _Endless

    def _target(self, reference: object) -> object:
        if not isinstance(reference, str):
            raise bad_request(f"Grammar error: {reference} is no reference")
        found: Any = self._root
        for step in reference[1:].split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise bad_request(f"Grammar error: Pointer '{reference[1:]}' does not exist")
            found = found[name]
        return found


def _size(schema: dict[str, Any], name: str, default: int) -> int:
    size = int(schema.get(name, default))
    if size > _LONGEST:
        raise bad_request(f"Grammar error: {name} is too large: {size}")
    return size
