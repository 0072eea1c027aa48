"""docs/architecture.md names every part, every package, and every module that lies at the top of a large service."""

import re
from pathlib import Path

from . import code

PAGE = (code.ROOT / "docs/architecture.md").read_text()
NO_MODULES = {"cloudach", "lua"}
SERVICES = {"Inside the gateway": "gateway", "Inside the controller": "controller", "Inside inference": "inference"}


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## )", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


def source(service: str) -> Path:
    return code.ROOT / f"services/{service}/src/cloudach_{service}"


def test_every_part() -> None:
    parts = [
        folder for kind in ("libs", "services") for folder in (code.ROOT / kind).iterdir() if (folder / "src").exists()
    ]
    assert len(parts) > 6
    assert [part for part in parts if f"| `{part.relative_to(code.ROOT)}` |" not in PAGE] == []


def test_every_package_and_every_module_at_the_top() -> None:
    for title, service in SERVICES.items():
        text, root = section(title), source(service)
        packages = [file.parent.relative_to(root) for file in root.rglob("*/__init__.py")]
        named = [re.escape(str(package)).replace("proxy/", "(proxy/)?") for package in packages]
        assert [name for name in named if not re.search(rf"`{name}/`", text)] == [], service
        modules = {file.stem for file in root.glob("*.py")} - {"__init__"}
        assert {name for name in modules if f"`{name}`" not in text} == set(), service


def test_nothing_that_is_gone() -> None:
    for title, service in SERVICES.items():
        root = source(service)
        known = {file.stem for file in root.rglob("*.py")} | {file.parent.name for file in root.rglob("__init__.py")}
        for row in re.findall(r"^\| `.*\|$", section(title), flags=re.MULTILINE):
            for name in re.findall(r"`([a-z_/]+)`", row):
                last = name.strip("/").rpartition("/")[2]
                assert last in known | NO_MODULES, f"{service}: {name}"
