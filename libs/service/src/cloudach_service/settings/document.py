"""Reads a YAML document so that each value knows its line. What the values mean is not known here."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import yaml
from yaml.reader import ReaderError

Field = tuple[int | str, ...]
"""The way to a value: the names of mappings and the places in lists."""

_QUOTED = re.compile(r"""(['"])(?![<\\]).{2,}?\1""")

_LOOP = "it is nested too deeply, or an anchor holds itself"


class NotYaml(Exception):
    """The text is no YAML document, or one that means two things at once."""


class Document:
    """A YAML document. It raises NotYaml, whose messages hold no value, because a value may be a secret."""

    def __init__(self, text: str) -> None:
        try:
            self._loader = yaml.SafeLoader(text)
            self._root = self._loader.get_single_node()
            _refuse_loops(self._root, set(), set())
        except (yaml.MarkedYAMLError, RecursionError) as error:
            raise _not_yaml(error) from None
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise NotYaml(f"no file may hold the character U+{error.character:04X}, as line {line} does") from None

    def values(self) -> Any:
        """Returns what the document holds, and None for an empty one. Raises NotYaml."""
        if self._root is None:
            return None
        try:
            return self._loader.construct_document(self._root)
        except (yaml.MarkedYAMLError, RecursionError, ValueError, KeyError, AttributeError) as error:
            # PyYAML trips over the last two where a tag such as !!bool stands before what is none.
            raise _not_yaml(error) from None

    def line(self, field: Sequence[int | str]) -> int | None:
        """Returns the line of the field, or of the nearest mapping or list around it. The whole has no line."""
        node, line = self._root, None
        for step in field:
            found = next((pair for pair in _entries(node) if pair[0] == step), None)
            if found is None:
                break
            _, line, node = found
        return line

    def repeated(self) -> list[Field]:
        """Lists the fields that one mapping has twice. PyYAML would take the last one without a word."""
        found: list[Field] = []
        for field, node in self._nodes(()):
            if isinstance(node, yaml.MappingNode):
                names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
                found += [(*field, name) for name in dict.fromkeys(names) if names.count(name) > 1]
        return found

    def replace_texts(
        self, change: Callable[[str], str], *, only_try: Container[int | str] = ()
    ) -> list[tuple[Field, str]]:
        """Puts each text through `change`. Returns the fields for which it raised ValueError, with the messages.

        Texts below a top-level field in `only_try` go through it too, and stay as they are.
        """
        refused: list[tuple[Field, str]] = []
        for field, node in self._nodes(()):
            if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
                try:
                    changed = change(node.value)
                except ValueError as error:
                    refused.append((field, str(error)))
                    continue
                if field and field[0] not in only_try:
                    node.value = changed
        return refused

    def _nodes(self, field: Field) -> Iterator[tuple[Field, yaml.Node]]:
        """Yields every node once, with the first way to it, however often anchors bring it back."""
        waiting: list[tuple[Field, yaml.Node | None]] = [(field, self._root)]
        seen: set[int] = set()
        while waiting:
            field, node = waiting.pop()
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            yield field, node
            waiting += reversed([((*field, step), inner) for step, _, inner in _entries(node)])


def _entries(node: yaml.Node | None) -> Iterator[tuple[int | str, int, yaml.Node]]:
    """Yields the name or place, the line and the node of everything that a mapping or a list holds."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield key.value, key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            yield place, value.start_mark.line + 1, value


def _refuse_loops(node: yaml.Node | None, above: set[int], done: set[int]) -> None:
    """Refuses an anchor within itself, because reading its values would never end. Raises NotYaml."""
    if node is None or id(node) in done:
        return
    if id(node) in above:
        raise NotYaml(_LOOP)
    for _, _, inner in _entries(node):
        _refuse_loops(inner, above | {id(node)}, done)
    done.add(id(node))


def _not_yaml(error: Exception) -> NotYaml:
    if isinstance(error, RecursionError):
        return NotYaml(_LOOP)
    if not isinstance(error, yaml.MarkedYAMLError):
        return NotYaml("it holds a date or a number that does not exist, or a tag before what is no such value")
    mark = error.problem_mark or error.context_mark
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    # An unquoted secret that begins with * or ! is an alias or a tag for YAML, and the problem quotes it.
    what = ", ".join(filter(None, (error.context, error.problem)))
    return NotYaml(f"{_QUOTED.sub('…', what)}{where}")
