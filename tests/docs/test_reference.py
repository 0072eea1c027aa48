"""The reference pages have all that is in the code, and nothing that is not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from inspect import getsource
from pathlib import Path
from types import ModuleType

import starlette.middleware.cors
from cloudach_gateway.errors import GatewayError
from cloudach_gateway.proxy.stream.slow_path import SlowPath

from . import code

PAGES = code.ROOT / "docs/reference"
EVERY_LINE = {"ts", "level", "service", "event", "exception"}

NOT_HEADERS = {
    "bearer",
    "chunked",
    "deflate",
    "false",
    "gzip",
    "http",
    "identity",
    "no-cache",
    "requests",
    "tokens",
    "true",
    "x-gzip",
}
"""Bytes in the client's code that look like a header's name and are a value."""


def rows(page: str, *sections: str) -> Iterator[list[str]]:
    """The cells of each row of the tables of a page, or of some of its sections."""
    for section in re.split(r"^## ", (PAGES / page).read_text(), flags=re.MULTILINE)[1:]:
        if sections and section.partition("\n")[0] not in sections:
            continue
        for table in re.findall(r"^\|[-| ]+\|\n((?:\|.*\n)+)", section, flags=re.MULTILINE):
            for row in table.splitlines():
                yield [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_metrics() -> None:
    told = {}
    for name, kind, labels, meaning in rows("metrics.md", "Gateway", "Controller"):
        assert meaning.endswith((".", ")")), name
        told[names(name)[0]] = (kind, tuple(names(labels)))
    assert told == code.metrics(code.GATEWAY) | code.metrics(code.CONTROLLER)


def test_metrics_stand_with_the_service_that_has_them() -> None:
    assert {names(row[0])[0] for row in rows("metrics.md", "Gateway")} == set(code.metrics(code.GATEWAY))
    assert {names(row[0])[0] for row in rows("metrics.md", "Controller")} == set(code.metrics(code.CONTROLLER))


def test_the_reasons_of_the_slow_path() -> None:
    told = {name for row in rows("metrics.md", "Why an answer is parsed") for name in names(row[0])}
    assert told == set(SlowPath)


def test_log_fields_of_every_line() -> None:
    formatter = code.ROOT / "libs/service/src/cloudach_service/logs.py"
    text = formatter.read_text()
    told = {name for row in rows("log-fields.md", "Every line") for name in names(row[0])}
    assert told == EVERY_LINE
    assert all(f'"{name}"' in text for name in EVERY_LINE)


def test_log_fields_of_the_gateway() -> None:
    fields, unclear = code.log_fields(code.GATEWAY)
    models = code.GATEWAY / "catalog/cluster/models.py"
    assert {place.rpartition(" ")[2] for place in unclear} == {"new"}, "say here what these lines have"
    fields |= returned_keys(models.read_text(), "_log_fields")
    told = set()
    for section in ("A request of the gateway", "Other lines of the gateway"):
        told |= {name for row in rows("log-fields.md", section) for name in names(row[0])}
    assert told == fields


def test_log_fields_of_a_request() -> None:
    envelope = (code.GATEWAY / "client/envelope.py").read_text()
    told = {name for row in rows("log-fields.md", "A request of the gateway") for name in names(row[0])}
    written = envelope[envelope.index("    line: dict[") :]
    assert told == set(re.findall(r'"([a-z_]+)"(?:\]|:)', written))


def test_log_fields_of_the_controller() -> None:
    fields, unclear = code.log_fields(code.CONTROLLER)
    assert unclear == set()
    assert {name for row in rows("log-fields.md", "The controller") for name in names(row[0])} == fields


def test_log_fields_of_lists_and_watches() -> None:
    fields, unclear = code.log_fields(code.ROOT / "libs/kube/src/cloudach_kube")
    assert unclear == set()
    assert {name for row in rows("log-fields.md", "Lists and watches, in both") for name in names(row[0])} == fields


def test_log_fields_of_a_changed_level() -> None:
    fields, unclear = code.log_fields(code.ROOT / "libs/service/src/cloudach_service/log_level.py")
    assert unclear == set()
    assert {name for row in rows("log-fields.md", "The level of a running service") for name in names(row[0])} == fields


def test_headers() -> None:
    client = [code.GATEWAY / part for part in ("client", "api", "tracing", "app.py", "errors.py")]
    found = code.header_names(*client) - NOT_HEADERS
    told = [name for row in rows("headers.md") for name in names(row[0])]
    for name in found:
        assert any(one == name or (name.endswith("-") and one.startswith(name)) for one in told), name
    sources = "".join(file.read_text() for root in client for file in files_of(root)).lower()
    sources += getsource(cors()).lower()
    for name in told:
        in_two = name.removeprefix("x-ratelimit-").partition("-")[0] + "-"
        assert f'"{name}"' in sources or (name.startswith("x-ratelimit-") and f'"x-ratelimit-{in_two}"' in sources), (
            name
        )


def test_headers_between_gateway_and_engine() -> None:
    page = (PAGES / "headers.md").read_text()
    told = set(names(page[page.index("## Between gateway and engine") :]))
    fleet = code.GATEWAY / "proxy/placing/fleet.py"
    sent = {
        name
        for text in bytes_in(fleet.read_text(), "_request")
        for name in re.findall(r"([a-z][a-z-]+): ", text.replace("%b", " "))
    }
    kept = re.search(r"KEPT = frozenset\(\{(.*?)\}\)", (code.GATEWAY / "proxy/engine/answer_headers.py").read_text())
    assert kept is not None
    pipeline = (code.GATEWAY / "api/pipeline.py").read_text()
    record = (code.GATEWAY / "record.py").read_text()
    request_headers = {
        *re.findall(r'\(b"([a-z-]+)", record\.', pipeline),
        *re.findall(r'\(b"([a-z-]+)", parent', record),
    }
    assert len(request_headers) == 2
    assert told == sent | request_headers | set(re.findall(r'b"([a-z-]+)"', kept[1]))


def test_every_error_class_has_a_row() -> None:
    told = {(status, one) for status, code_, *_ in rows("errors.md") for one in names(code_) or ["none"]}
    for kind in kinds(GatewayError):
        if isinstance(vars(kind).get("code"), str):
            assert (str(kind.status), kind.code) in told, kind
        assert str(kind.status) in {status for status, _ in told}, kind
    assert len(list(kinds(GatewayError))) > 15


def test_every_code_has_a_row_and_every_row_a_code() -> None:
    told = {name for row in rows("errors.md") for name in names(row[1])}
    assert told == code.error_codes(code.GATEWAY, code.WIRE)


def test_types_of_errors() -> None:
    types = {(str(kind.status), kind.code): kind.type for kind in kinds(GatewayError)}
    for status, code_, type_, when, advice in rows("errors.md"):
        assert when, code_
        assert advice, code_
        for name in names(code_):
            known = types.get((status, name))
            if known is not None and status != "429":  # its type says what is limited
                assert names(type_) == [known], (status, name)


def kinds(root: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for kind in root.__subclasses__():
        if kind.__module__.startswith("cloudach_gateway"):
            yield kind
        yield from kinds(kind)


def cors() -> ModuleType:
    return starlette.middleware.cors


def files_of(root: Path) -> list[Path]:
    return [root] if root.is_file() else sorted(root.rglob("*.py"))


def bytes_in(text: str, function: str) -> list[str]:
    """The bytes that stand in a function."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            found += [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
    return [value.decode("latin-1") for value in found if isinstance(value, bytes)]


def returned_keys(text: str, function: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            for one in ast.walk(node):
                if isinstance(one, ast.Return) and isinstance(one.value, ast.Dict):
                    found |= {str(key.value) for key in one.value.keys if isinstance(key, ast.Constant)}
    return found
