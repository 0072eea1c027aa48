"""Files are made from the types, as text. `python -m cloudach_model_api write` puts them where they belong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from .crd import crd, openapi, use_crd, use_openapi
from .reasons import MEANINGS

_NOTE = "# Made by `python -m cloudach_model_api write` from libs/model-api: change it there.\n"
_SHOWN_BEFORE = {"lora.adapters[].source"}
BEGIN, END = "<!-- fields: made by `python -m cloudach_model_api write` -->", "<!-- end of fields -->"


def crd_files() -> Iterator[tuple[str, str]]:
    """Yields path and text of each CRD, for kubectl and for the chart.

    `helm uninstall` keeps those of the chart, because all objects of a CRD go with it.
    """
    for definition in (crd, use_crd):
        name = definition()["metadata"]["name"]
        kept = definition({"annotations": {"helm.sh/resource-policy": "keep"}})
        assert "{{" not in _yaml(kept), "helm would take a description for a template"
        yield f"k8s/crds/{name}.yaml", _NOTE + _yaml(definition())
        yield f"charts/cloudach-crds/templates/{name}.yaml", _NOTE + _yaml(kept)


def with_fields(document: str) -> str:
    """Returns the document with the tables between its marks made anew. Raises ValueError when it has no marks."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there is no {BEGIN!r} … {END!r}")
    return f"{head}{BEGIN}\n\n{_reference()}\n{END}{tail}"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _reference() -> str:
    properties = openapi()["properties"]
    return "\n".join(
        (
            "### spec",
            "",
            *_table(properties["spec"]),
            "### status",
            "",
            *_table(properties["status"]),
            "### ModelUse: status",
            "",
            *_table(use_openapi()["properties"]["status"]),
            "### Reasons of conditions",
            "",
            "| reason | |",
            "|---|---|",
            *(f"| `{reason}` | {meaning} |" for reason, meaning in MEANINGS.items()),
            "",
        )
    )


def _table(schema: dict[str, Any]) -> Iterator[str]:
    yield "| field | type | default | |"
    yield "|---|---|---|---|"
    for path, part, required in _fields(schema):
        default = "required" if required else _default(part)
        yield f"| `{path}` | {_type(part)} | {default} | {_meaning(part)} |"
    yield ""


def _fields(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    required = schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, part, name in required
        if part.get("x-kubernetes-preserve-unknown-fields") or path in _SHOWN_BEFORE:
            continue
        yield from _fields(part, f"{path}.")
        if "items" in part:
            yield from _fields(part["items"], f"{path}[].")


def _default(part: dict[str, Any]) -> str:
    default = part.get("default")
    if default is None or default == {}:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _type(part: dict[str, Any]) -> str:
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if part.get("x-kubernetes-int-or-string"):
        return "quantity"
    kind = str(part["type"])
    if kind == "array":
        inner = part["items"]
        return "list" if inner["type"] == "object" else f"list of {inner['type']}s"
    if kind == "object" and "additionalProperties" in part:
        inner = part["additionalProperties"]
        return f"map of {'quantities' if inner.get('x-kubernetes-int-or-string') else inner['type'] + 's'}"
    if part.get("format") == "date-time":
        return "time"
    bounds = [f"{sign} {part[key]:,}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in part]
    return " ".join((kind, ", ".join(bounds))).strip()


def _meaning(part: dict[str, Any]) -> str:
    return str(part.get("description", "")).replace("|", "\\|")
