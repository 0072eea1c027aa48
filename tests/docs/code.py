"""What the source of the services says, read without running it: metrics, log fields, header names and error codes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / "services/gateway/src/cloudach_gateway"
CONTROLLER = ROOT / "services/controller/src/cloudach_controller"
WIRE = ROOT / "libs/openai-wire/src/openai_wire"

_METRICS = {"Counter", "Gauge", "Histogram"}
_LOGGED = {"debug", "info", "warning", "error", "exception", "log"}


@cache
def modules(*roots: Path) -> tuple[tuple[Path, ast.Module], ...]:
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*.py")))]
    assert files, roots
    return tuple((file, ast.parse(file.read_text())) for file in files)


def metrics(root: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Each metric as Prometheus shows it, with its kind and its labels."""
    found = {}
    for _, module in modules(root):
        for call in _calls(module):
            if not (isinstance(call.func, ast.Name) and call.func.id in _METRICS and len(call.args) >= 2):
                continue
            name = ast.literal_eval(call.args[0])
            if call.func.id == "Counter":
                name = name.removesuffix("_total") + "_total"
            labels = ast.literal_eval(call.args[2]) if len(call.args) > 2 else []
            found[name] = (call.func.id.lower(), tuple(labels))
    return found


def log_fields(root: Path) -> tuple[set[str], set[str]]:
    """The fields that this service's log lines may have, and places where they cannot be told from the source."""
    fields: set[str] = set()
    unclear: set[str] = set()
    for file, module in modules(root):
        for scope in ast.walk(module):
            if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in _calls(scope):
                given = _fields_of(call)
                if given is None:
                    continue
                known = _keys(given, scope, module)
                if known is None:
                    unclear.add(f"{file.relative_to(root)}:{given.lineno} {ast.unparse(given)}")
                else:
                    fields |= known
    return fields, unclear


def error_codes(*roots: Path) -> set[str]:
    """Every `code` that is given to an error or is the code of an error's class."""
    found: set[str] = set()
    for _, module in modules(*roots):
        for node in ast.walk(module):
            values: list[ast.expr] = []
            if isinstance(node, ast.keyword) and node.arg == "code":
                values = [node.value]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(one, ast.Name) and one.id == "code" for one in targets) and node.value is not None:
                    values = [node.value]
            for value in values:
                parts = (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,)
                for part in parts:
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        found.add(part.value)
    return found


def header_names(*roots: Path) -> set[str]:
    """Bytes that look like the name of a header: those with a hyphen, and those that stand before a value or that a
    header is looked up by."""
    found: set[str] = set()
    for _, module in modules(*roots):
        for node in ast.walk(module):
            if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                text = node.value.decode("latin-1")
                if re.fullmatch(r"[a-z]+(-[a-z]+)+-?", text):
                    found.add(text)
            elif isinstance(node, ast.Tuple) and node.elts and _plain(node.elts[0]):
                found |= (
                    {_plain(one) for one in node.elts if _plain(one)} if len(node.elts) > 2 else {_plain(node.elts[0])}
                )
            elif isinstance(node, ast.Compare):
                found |= {_plain(one) for one in node.comparators if _plain(one)}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "header":
                found |= {_plain(argument) for argument in node.args if _plain(argument)}
    return found


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _plain(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        text = node.value.decode("latin-1")
        return text if re.fullmatch(r"[a-z][a-z-]*", text) else ""
    return ""


def _fields_of(call: ast.Call) -> ast.expr | None:
    """What a call adds to a log line: `extra=` of a logger's method, or the last argument of `logs.event`."""
    if not isinstance(call.func, ast.Attribute):
        return None
    if call.func.attr in _LOGGED:
        return next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    if call.func.attr == "event" and isinstance(call.func.value, ast.Name) and call.func.value.id == "logs":
        return call.args[3]
    return None


def _keys(given: ast.expr, scope: ast.AST, module: ast.Module) -> set[str] | None:
    """The keys of a mapping: of a literal, of a name that is built in this function, or of what a function returns."""
    if isinstance(given, ast.Dict):
        names = {key.value for key in given.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        spread = [value for key, value in zip(given.keys, given.values, strict=True) if key is None]
        for one in spread:
            more = _keys(one, scope, module)
            if more is None:
                return None
            names |= more
        return names if len(names) + len(spread) >= len(given.keys) else None
    if isinstance(given, ast.BinOp) and isinstance(given.op, ast.BitOr):
        left, right = _keys(given.left, scope, module), _keys(given.right, scope, module)
        return None if left is None or right is None else left | right
    if isinstance(given, ast.IfExp):
        left, right = _keys(given.body, scope, module), _keys(given.orelse, scope, module)
        return None if left is None or right is None else left | right
    if isinstance(given, ast.Name):
        return _built(given.id, scope, module)
    return None


def _built(name: str, scope: ast.AST, module: ast.Module) -> set[str] | None:
    found: set[str] = set()
    known = False
    for node in ast.walk(scope):
        value: ast.expr | None = None
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            value = node.value
        elif isinstance(node, ast.AnnAssign | ast.AugAssign) and isinstance(node.target, ast.Name):
            value = node.value if node.target.id == name else None
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            place = node.targets[0]
            if isinstance(place.value, ast.Name) and place.value.id == name and isinstance(place.slice, ast.Constant):
                found.add(str(place.slice.value))
        if value is not None:
            more = _keys(value, scope, module)
            if more is None:
                return None
            found |= more
            known = True
    return found if known else None
