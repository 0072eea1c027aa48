"""The real kubectl and helm, as an operator runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import ROOT

PATIENCE_S = 180.0  # only keeps a test from hanging


class CommandFailed(Exception):
    """A command ended with an error; the message is what it said."""


def tool(name: str) -> Path:
    """kubectl or helm: the one that KUBECTL or HELM names, or else scripts/kube-tools.sh's."""
    named = os.environ.get(name.upper())
    path = Path(named) if named else ROOT / ".tools/bin" / name
    if not path.exists():
        found = shutil.which(name)
        if named or found is None:
            raise FileNotFoundError(f"{path} is missing: run scripts/kube-tools.sh, or set {name.upper()}")
        path = Path(found)
    return path


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one server and, if given, in the name of someone else (`--as`)."""

    kubeconfig: Path
    user: str | None = None

    def run(
        self, *args: str | Path, stdin: str | None = None, timeout_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Whatever its exit status."""
        return run(tool("kubectl"), *self._flags(), *args, kubeconfig=self.kubeconfig, stdin=stdin, timeout_s=timeout_s)

    def __call__(self, *args: str | Path, stdin: str | None = None, timeout_s: float = PATIENCE_S) -> str:
        """Its output. Raises CommandFailed."""
        return checked(self.run(*args, stdin=stdin, timeout_s=timeout_s))

    def get(self, *args: str) -> Any:
        """`get … -o json`, parsed."""
        return json.loads(self("get", *args, "-o", "json"))

    def apply(self, *objects: dict[str, Any], flags: Sequence[str] = ()) -> str:
        """`apply` of objects (JSON is YAML). Raises CommandFailed."""
        return self("apply", *flags, "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)))

    def raw(self, verb: str, path: str, body: Any = None) -> Any:
        """`get`, `create`, `replace` or `delete` of a raw path, as the API server answers it. Raises CommandFailed."""
        flags = () if body is None else ("-f", "-")
        return json.loads(self(verb, "--raw", path, *flags, stdin=None if body is None else json.dumps(body)))

    def _flags(self) -> tuple[str, ...]:
        return () if self.user is None else ("--as", self.user)


def run(
    *command: str | Path, kubeconfig: Path, stdin: str | None = None, timeout_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """A command with KUBECONFIG set, and caches of its own: another server may have had the same port before."""
    cache = kubeconfig.parent / "cache"
    env = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "KUBECACHEDIR": str(cache / "kube"),
        "HELM_CACHE_HOME": str(cache / "helm"),
        "HELM_CONFIG_HOME": str(cache / "helm-config"),
        "HELM_DATA_HOME": str(cache / "helm-data"),
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        list(map(str, command)), input=stdin, text=True, capture_output=True, env=env, timeout=timeout_s, check=False
    )


def await_kinds(kubectl: Callable[..., str], *names: str) -> None:
    """Until the server tells clients of these kinds, as `models.cloudach.dev`; a moment after their CRD is Established.

    `kubectl` raises CommandFailed. Raises TimeoutError.
    """
    deadline = time.monotonic() + PATIENCE_S
    for name in names:
        while name not in _kinds(kubectl, name.partition(".")[2]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not know {name}")
            time.sleep(0.1)


def _kinds(kubectl: Callable[..., str], group: str) -> list[str]:
    try:
        return kubectl("api-resources", f"--api-group={group}", "-o", "name").split()
    except CommandFailed:  # of a group that has just come or gone
        return []


def checked(done: subprocess.CompletedProcess[str]) -> str:
    """Its output. Raises CommandFailed."""
    if done.returncode != 0:
        raise CommandFailed((done.stderr or done.stdout).strip())
    return done.stdout
