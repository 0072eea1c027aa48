"""Makes docs/reference/settings.md from the settings classes of the services.

python scripts/settings_docs.py write|check
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from cloudach_controller.settings import Settings as Controller
from cloudach_gateway.settings import Settings as Gateway
from cloudach_inference.local.config import Settings as Inference
from cloudach_service.settings import Group
from cloudach_service.settings.reference import NotDescribed, Section, Setting, sections
from cloudach_stack.config import StackConfig

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "settings.md"

SERVICES: dict[str, tuple[type[Group], str]] = {
    "Gateway": (Gateway, "`cloudach-gateway --config FILE`. In the chart: `gateway.config`."),
    "Controller": (Controller, "`cloudach-controller --config FILE`. In the chart: `controller.config`."),
    "Inference": (Inference, "`cloudach-inference serve --config FILE`: [inference.md](../inference.md)."),
    "Stack": (StackConfig, "`make run CONFIG=FILE`: [models of your own](../configuration.md#models-of-your-own)."),
}

HEAD = """<!-- Made by `make settings-docs` from the settings classes of the services: change them, not this page. -->
# Settings

[configuration.md](../configuration.md) says what they mean together, and which rules hold for every file. Seconds are
more than 0, and fractions are allowed, unless the table says otherwise. `models[]` stands for each entry of the list.
"""


def page() -> str:
    """The whole page, in Markdown. Raises NotDescribed."""
    parts = [HEAD, ", ".join(f"[{name}](#{name.lower()})" for name in SERVICES) + ".\n"]
    for name, (kind, file) in SERVICES.items():
        parts.append(f"## {name}\n\n{file}\n")
        parts += [_section(name, section) for section in sections(kind)]
    return "\n".join(parts)


def _section(service: str, section: Section) -> str:
    title = f"### {service}: `{section.name}`\n\n{_linked(section.description)}\n\n" if section.name else ""
    rows = "\n".join(_row(setting) for setting in section.settings)
    return f"{title}| setting | value | default | |\n|---|---|---|---|\n{rows}\n"


def _row(setting: Setting) -> str:
    default = setting.default if setting.is_in_words else f"`{setting.default}`"
    return f"| `{setting.path}` | {setting.kind} | {default} | {_linked(setting.description)} |"


def _linked(text: str) -> str:
    """Names of pages become links; characters that Markdown would take for its own are kept from it."""
    safe = "".join(part if part.startswith("`") else _escaped(part) for part in re.split(r"(`[^`]*`)", text))
    return re.sub(r"docs/([a-z0-9/-]+\.md)", lambda found: f"[{found[1].rpartition('/')[2]}](../{found[1]})", safe)


def _escaped(text: str) -> str:
    return re.sub(r"([|*<>])", r"\\\1", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["write", "check"])
    write = parser.parse_args().action == "write"
    try:
        wanted = page()
    except NotDescribed as error:
        print(f"settings_docs: {error}", file=sys.stderr)
        return 2
    stale = not PAGE.exists() or PAGE.read_text("utf-8") != wanted
    if stale and write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(wanted, "utf-8")
    if stale:
        print(f"{'written' if write else 'out of date: run `make settings-docs`'}: {PAGE.relative_to(ROOT)}")
    return 0 if write or not stale else 1


if __name__ == "__main__":
    sys.exit(main())
