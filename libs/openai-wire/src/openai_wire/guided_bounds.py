"""Bounds what a request may ask of guided decoding: the size of schemas, grammars, regular expressions and tools.

An engine compiles what guides an answer before the first token, in a few threads that all requests share. Nothing stops
a compilation that has begun, even if the client goes away. So the edge refuses what would take long.
docs/configuration.md says where the numbers come from. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from .guided import is_guided
from .repetition import MOST, places
from .requests import BadField


@dataclass(frozen=True, slots=True)
class GuidedBounds:
    """The most of everything that is accepted.

    `bytes` bounds one schema, grammar, regular expression or list of choices. `tools_bytes` bounds all tools together,
    as JSON. `depth` is levels of JSON, and `values` the entries of enums and choices. `properties` counts those of all
    objects, with alternatives and definitions, and `object_properties` those of one object. `repetition` explains
    `places`; string lengths that differ count as places, too.
    """

    bytes: int = 65_536
    tools: int = 256
    tools_bytes: int = 262_144
    depth: int = 64
    values: int = 1_000
    properties: int = 3_000
    object_properties: int = 300
    places: int = 1_024


# Where constraints stand, and whether they are schemas, regular expressions, grammars or lists of choices. Engines
# before vLLM 0.12 know those that begin with `guided_`.
_KINDS = {
    "json": "schema",
    "structural_tag": "schema",
    "regex": "regex",
    "whitespace_pattern": "regex",
    "grammar": "grammar",
    "choice": "choices",
}
_TOOLS = ("tools", "functions")
_GUIDING = frozenset(
    (*_TOOLS, "structured_outputs", "structural_tag", "response_format", *(f"guided_{n}" for n in _KINDS))
)
_COUNTED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_ALTERNATIVES = ("anyOf", "oneOf", "allOf", "prefixItems", "structures", "tags", "elements")
# Formats for which an engine has a regular expression of its own. Other formats cost next to nothing.
_FORMATS = {"uri-template": 4, "email": 2, "uri": 1, "uri-reference": 1, "hostname": 1}
_AGAIN = 4  # an equal pattern is compiled again wherever it stands, at a quarter of the cost of a length
_TEXTS = {"pattern": False, "regex": False, "grammar": True}  # True for a grammar


def check_guided(body: Mapping[str, Any], bounds: GuidedBounds) -> None:
    """Raises BadField for the first field of a chat or completion request that exceeds a bound.

    Tools that guide nothing are part of the prompt, so only their number, size and depth count.
    """
    if _GUIDING.isdisjoint(body):
        return
    guided = is_guided(body)
    total = _Total(bounds)
    for path, value, kind in _constraints(body):
        total.check(path, value, kind)
    for name in _TOOLS:
        tools = body.get(name)
        if not isinstance(tools, list) or not tools:
            continue
        if len(tools) > bounds.tools:
            _refuse(name, f"it has {len(tools)} entries", bounds.tools)
        size = len(msgspec.json.encode(tools))
        if size > bounds.tools_bytes:
            _refuse(name, f"it has {size} bytes", bounds.tools_bytes)
        for number, tool in enumerate(tools):
            inner = tool.get("function") if isinstance(tool, Mapping) and "function" in tool else tool
            path = f"{name}[{number}].function" if inner is not tool else f"{name}[{number}]"
            parameters = inner.get("parameters") if isinstance(inner, Mapping) else None
            if guided:
                total.check(f"{path}.parameters", parameters, "schema")
            else:
                _check_depth(f"{path}.parameters", parameters, bounds.depth)


def _constraints(body: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    outputs = body.get("structured_outputs")
    for name, kind in _KINDS.items():
        if isinstance(outputs, Mapping) and outputs.get(name) is not None:
            yield f"structured_outputs.{name}", outputs[name], kind
        if body.get(f"guided_{name}") is not None:
            yield f"guided_{name}", body[f"guided_{name}"], kind
    if body.get("structural_tag") is not None:
        yield "structural_tag", body["structural_tag"], "schema"
    form = body.get("response_format")
    if isinstance(form, Mapping):
        inner = form.get("json_schema")
        yield ("response_format", form, "schema") if inner is None else ("response_format.json_schema", inner, "schema")


class _Total:
    """Adds up a request's constraints, all of them together."""

    def __init__(self, bounds: GuidedBounds) -> None:
        self._bounds = bounds
        self._values = 0
        self._properties = 0
        self._places = 0
        self._known: set[Any] = set()  # lengths and patterns that stood before

    def check(self, path: str, value: Any, kind: str) -> None:
        bounds = self._bounds
        size = (
            len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else len(msgspec.json.encode(value))
        )
        if size > bounds.bytes:
            _refuse(path, f"it has {size} bytes", bounds.bytes)
        if kind == "choices":
            self._add_values(path, len(value) if isinstance(value, list) else 0)
        elif kind == "schema":
            self._check_schema(path, _decoded(value))
        elif isinstance(value, str):
            self._add_text(path, value, grammar=kind == "grammar")

    def _check_schema(self, path: str, schema: Any) -> None:
        most = self._bounds.depth
        level = [schema]
        for _ in range(most):
            inner: list[Any] = []
            for node in level:
                if isinstance(node, dict):
                    self._check_object(path, node)
                    inner += node.values()
                elif isinstance(node, list):
                    inner += node
            if not inner:
                return
            level = inner
        _check_levels(path, level, most)

    def _check_object(self, path: str, node: dict[str, Any]) -> None:
        bounds = self._bounds
        for name in _COUNTED:
            if isinstance(named := node.get(name), dict):
                if len(named) > bounds.object_properties and name == "properties":
                    _refuse(path, f"an object in it has {len(named)} properties", bounds.object_properties)
                self._add_properties(path, len(named))
                if name == "patternProperties":
                    for pattern in named:
                        self._add_text(path, pattern)
        for name in _ALTERNATIVES:
            if isinstance(several := node.get(name), list):
                self._add_properties(path, len(several))
        if isinstance(values := node.get("enum"), list):
            self._add_values(path, len(values))
        lengths = (_number(node.get("minLength")), _number(node.get("maxLength")))
        if lengths != (0, 0) and lengths not in self._known:  # all that are equal are compiled once
            self._known.add(lengths)
            self._add_places(path, int(max(0, min(MOST, max(lengths)))))
        for name, grammar in _TEXTS.items():
            if isinstance(text := node.get(name), str):
                self._add_text(path, text, grammar=grammar)
        if isinstance(form := node.get("format"), str) and form in _FORMATS:
            self._add_places(path, _FORMATS[form])

    def _add_values(self, path: str, number: int) -> None:
        self._values += number
        if self._values > self._bounds.values:
            _refuse(path, f"with it the request has {self._values} choices or enum values", self._bounds.values)

    def _add_properties(self, path: str, number: int) -> None:
        self._properties += number
        if self._properties > self._bounds.properties:
            what = f"with it the request has {self._properties} properties, definitions and alternatives"
            _refuse(path, what, self._bounds.properties)

    def _add_text(self, path: str, text: str, *, grammar: bool = False) -> None:
        number = places(text, grammar=grammar)
        if text in self._known:
            number = -(-number // _AGAIN)
        self._known.add(text)
        self._add_places(path, number)

    def _add_places(self, path: str, number: int) -> None:
        self._places += number
        if self._places > self._bounds.places:
            what = f"lengths and patterns of the request have {self._places} places where many characters may stand"
            _refuse(path, what, self._bounds.places)


def _check_depth(path: str, schema: Any, most: int) -> None:
    level = [schema]
    for _ in range(most):
        level = [inner for node in level for inner in _inner(node)]
        if not level:
            return
    _check_levels(path, level, most)


def _check_levels(path: str, level: list[Any], most: int) -> None:
    """Refuses a schema with anything within `level`, which already lies `most` levels deep."""
    if any(True for node in level for _ in _inner(node)):
        raise BadField(f"Invalid '{path}': it is more than {most} levels deep.", param=path, code="invalid_value")


def _inner(node: Any) -> Any:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _decoded(value: Any) -> Any:
    """Returns a schema that may be given as text. The engine refuses a text that is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def _refuse(path: str, what: str, most: int) -> NoReturn:
    raise BadField(f"Invalid '{path}': {what}, and at most {most} are accepted.", param=path, code="invalid_value")
