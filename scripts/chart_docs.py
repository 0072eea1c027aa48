"""Makes charts/cloudach's values.schema.json and the table of its README from the comments of its values.yaml.

A comment right above a value describes it. A last line `@schema {…}` (YAML) adds to the schema that the default tells
by its type. A mapping that has such a line is one value. Otherwise each of its entries is a value. `# @section NAME`
starts a section.

    python scripts/chart_docs.py write|check
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "cloudach"
CRD = ROOT / "k8s" / "crds" / "models.cloudach.dev.yaml"
BEGIN, END = "<!-- values: made by scripts/chart_docs.py -->", "<!-- end of values -->"

OF_THE_CHART = {
    "gatewayRedis": ("url", "password", "data_dir"),
    "gatewayTimeouts": ("drain_s",),
    "gatewayKubernetes": ("enabled", "namespaces", "kubeconfig", "context", "cache_file"),
    "controllerKubernetes": ("namespaces", "kubeconfig"),
    "controllerLeaderElection": ("enabled", "namespace", "name"),
    "controllerInference": ("image",),
}
"""Settings that the templates fill in, so that values may not."""

Schema = dict[str, Any]


class BadComment(Exception):
    """A value without a description, or with an @schema that is none."""


@dataclass(frozen=True)
class Value:
    path: str
    description: str
    schema: Schema
    default: Any


@dataclass(frozen=True)
class Section:
    title: str
    values: list[Value]


def sections(text: str) -> list[Section]:
    """All values, in order. Raises BadComment."""
    lines = text.splitlines()
    found: list[Section] = []
    for value, line in _values(yaml.compose(text, Loader=yaml.SafeLoader), lines, ""):
        title = _section_before(lines, line)
        if not found or found[-1].title != title:
            found.append(Section(title, []))
        found[-1].values.append(value)
    return found


def _values(node: yaml.Node, lines: list[str], prefix: str) -> Iterator[tuple[Value, int]]:
    assert isinstance(node, yaml.MappingNode)
    for key, item in node.value:
        path, line = prefix + key.value, key.start_mark.line
        description, schema = _comment(lines, line, path)
        if schema is None and isinstance(item, yaml.MappingNode):
            yield from _values(item, lines, path + ".")
            continue
        if not description:
            raise BadComment(f"{path} (line {line + 1}) has no description")
        default = yaml.SafeLoader("").construct_document(item)
        yield Value(path, description, _schema_of(default, path) | (schema or {}), default), line


def _comment(lines: list[str], line: int, path: str) -> tuple[str, Schema | None]:
    words: list[str] = []
    while line > 0 and lines[line - 1].strip().startswith("# "):
        line -= 1
        words.insert(0, lines[line].strip()[2:])
    schema: Schema | None = None
    if words and words[-1].startswith("@schema "):
        schema = yaml.safe_load(words.pop().removeprefix("@schema "))
        if not isinstance(schema, dict):
            raise BadComment(f"{path}: @schema is no mapping")
        if "$ref" in schema:
            schema = {"$ref": schema["$ref"], "type": None}
    return " ".join(words), schema


def _section_before(lines: list[str], line: int) -> str:
    for text in reversed(lines[:line]):
        if text.startswith("# @section "):
            return text.removeprefix("# @section ")
    raise BadComment(f"line {line + 1} belongs to no @section")


def _schema_of(default: Any, path: str) -> Schema:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    if type(default) not in kinds:
        raise BadComment(f"{path}: a default of {default!r} tells no type")
    return {"type": kinds[type(default)]}


def schema(found: list[Section], definitions: dict[str, Schema]) -> Schema:
    """The whole values.schema.json: nothing is allowed that is not named."""
    root: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart cloudach",
        "type": "object",
        "additionalProperties": False,
        "properties": {"global": {"type": "object", "description": "Helm's own, for charts that hold this one."}},
        "$defs": definitions,
    }
    for value in (value for section in found for value in section.values):
        *parents, name = value.path.split(".")
        place = root
        for parent in parents:
            place = place["properties"].setdefault(
                parent, {"type": "object", "additionalProperties": False, "properties": {}}
            )
        own = {key: entry for key, entry in value.schema.items() if entry is not None}
        place["properties"][name] = {"description": value.description, "default": value.default, **own}
    return root


def definitions() -> dict[str, Schema]:
    """Returns what @schema lines refer to by `#/$defs/…`."""
    return {"model": _model(), **_settings()}


def _model() -> Schema:
    """A Model of the values; its spec is the CRD's, closed: typos are refused before the API server sees them."""
    crd = yaml.safe_load(CRD.read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    text = {"type": "object", "additionalProperties": {"type": "string"}}
    return {
        "type": "object",
        "required": ["name", "spec"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "namespace": {"type": "string"},
            "labels": text,
            "annotations": text,
            "spec": _closed(spec),
        },
    }


def _closed(node: Any) -> Any:
    """The API server drops unknown fields, a JSON schema lets them pass: here they are refused."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    own = {key: _closed(item) for key, item in node.items() if not key.startswith("x-kubernetes-")}
    if "properties" in node and "additionalProperties" not in node and not _keeps_unknown(node):
        own["additionalProperties"] = False
    return own


def _keeps_unknown(node: Schema) -> bool:
    return bool(node.get("x-kubernetes-preserve-unknown-fields"))


def _settings() -> dict[str, Schema]:
    from cloudach_controller import settings as controller
    from cloudach_gateway import settings as gateway

    made: dict[str, Schema] = {}
    for prefix, settings in {"gateway": gateway.Settings, "controller": controller.Settings}.items():
        made |= _hoisted(prefix, settings.model_json_schema())
        del made[f"{prefix}Config"]["properties"]["listen"]
    del made["controllerConfig"]["properties"]["network_policy"]
    del made["controllerConfig"]["properties"]["gcs_store"]
    del made["controllerNetworkPolicy"], made["controllerGcsStore"]
    for group, names in OF_THE_CHART.items():
        for name in names:
            del made[group]["properties"][name]
    return made


def _hoisted(prefix: str, made: Schema) -> dict[str, Schema]:
    """pydantic's schema with its own $defs moved to the root, as PREFIXName; itself as PREFIXConfig."""
    text = json.dumps(made).replace("#/$defs/", f"#/$defs/{prefix}")
    whole = json.loads(text)
    parts = {prefix + name: part for name, part in whole.pop("$defs", {}).items()}
    return {f"{prefix}Config": whole, **parts}


def table(found: list[Section]) -> str:
    """The README's part about the values, in Markdown."""
    lines: list[str] = []
    for section in found:
        lines += [f"### {section.title}", "", "| value | default | |", "|---|---|---|"]
        lines += [f"| `{v.path}` | {_shown(v.default)} | {_cell(v.description)} |" for v in section.values]
        lines.append("")
    return "\n".join(lines).rstrip("\n")


def _shown(default: Any) -> str:
    return f"`{_cell(json.dumps(default, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def outputs() -> dict[Path, str]:
    """Returns each file with what belongs into it."""
    found = sections((CHART / "values.yaml").read_text())
    readme = CHART / "README.md"
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadComment(f"{readme} lacks the lines {BEGIN!r} and {END!r}")
    return {
        CHART / "values.schema.json": json.dumps(schema(found, definitions()), indent=2, ensure_ascii=False) + "\n",
        readme: f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{after}",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["write", "check"])
    write = parser.parse_args().action == "write"
    try:
        wanted = outputs()
    except BadComment as error:
        print(f"chart_docs: {error}", file=sys.stderr)
        return 2
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if write:
            path.write_text(wanted[path])
        print(f"{'written' if write else 'out of date: run `make chart-docs`'}: {path.relative_to(ROOT)}")
    return 0 if write or not stale else 1


if __name__ == "__main__":
    sys.exit(main())
