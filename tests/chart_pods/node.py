"""A cluster for tests alone, with a node: how to run a command that reaches it, and how images get there. Either of

CLUSTER_EXEC        a prefix that runs a command with KUBECONFIG set and the Services in reach; on a node itself: `env`
CLUSTER_LOAD        makes an image archive known to the node: `kind load image-archive`, `k3s ctr images import`

or, to start one for these tests that ends with them,

KUBE_NODE_SCRIPTS   a folder with node-up, in-node and node-down (as root), called as below
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubectl import PATIENCE_S, CommandFailed, tool

NAMESPACE = "cloudach-test"


class Node:
    """`namespace` is where kubectl and helm work."""

    def __init__(self, prefix: Sequence[str | Path], namespace: str = NAMESPACE) -> None:
        self._prefix = list(map(str, prefix))
        self._namespace = ("-n", namespace)

    def run(self, *command: str | Path, stdin: str = "", timeout_s: float = PATIENCE_S) -> str:
        """What it prints. Raises CommandFailed."""
        return _run([*self._prefix, *map(str, command)], stdin, timeout_s)

    def is_this_machine(self) -> bool:
        """Whether its pods can mount what lies here."""
        return "KUBE_NODE_SCRIPTS" in os.environ or self._prefix == ["env"]

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._prefix, *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def kubectl(self, *arguments: str, stdin: str = "", timeout_s: float = PATIENCE_S) -> str:
        return self.run(tool("kubectl"), *self._namespace, *arguments, stdin=stdin, timeout_s=timeout_s)

    def helm(self, *arguments: str | Path, stdin: str = "", timeout_s: float = 700) -> str:
        return self.run(tool("helm"), *self._namespace, *arguments, stdin=stdin, timeout_s=timeout_s)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Each says itself in which namespace it is."""
        self.run(tool("kubectl"), "apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)))

    def minor(self) -> int:
        """20 for Kubernetes 1.20."""
        return int(json.loads(self.kubectl("version", "-o", "json"))["serverVersion"]["minor"].rstrip("+"))

    def tell(self) -> str:
        """What one would look at when something is not as it should be."""
        told = [self.kubectl("get", "pods", "-o", "wide")]
        told.append(self.kubectl("get", "events", "--sort-by=.lastTimestamp")[-4000:])
        for pod in self.get("pods")["items"]:
            name = pod["metadata"]["name"]
            try:
                told.append(f"--- {name}\n{self.kubectl('logs', name, '--all-containers', '--tail=30')}")
            except CommandFailed as error:
                told.append(f"--- {name}\n{error}")
        return "\n".join(told)


def require_node() -> None:
    """Skips the test where there is none."""
    if not ("KUBE_NODE_SCRIPTS" in os.environ or {"CLUSTER_EXEC", "CLUSTER_LOAD"} <= os.environ.keys()):
        pytest.skip(
            "LEFT OUT, needs a cluster with a node: set CLUSTER_EXEC and CLUSTER_LOAD, on k3s CLUSTER_EXEC=env and "
            "CLUSTER_LOAD='k3s ctr images import' (tests/chart_pods/node.py)"
        )


@contextmanager
def node_with(archives: Sequence[Path]) -> Iterator[Node]:
    """The cluster's node, with these images on it. Raises CommandFailed."""
    if scripts := os.environ.get("KUBE_NODE_SCRIPTS"):
        with _started(Path(scripts), archives) as node:
            yield node
        return
    for archive in archives:
        _run([*shlex.split(os.environ["CLUSTER_LOAD"]), str(archive)], timeout_s=600)
    node = Node(shlex.split(os.environ["CLUSTER_EXEC"]))
    yield node
    node.kubectl("delete", "namespace", NAMESPACE, "--timeout=300s", timeout_s=310)


@contextmanager
def _started(scripts: Path, archives: Sequence[Path]) -> Iterator[Node]:
    home = tempfile.mkdtemp(prefix="cloudach-node-")
    images = [argument for archive in archives for argument in ("--image", str(archive))]
    # Ends the cluster when its stdin does: also when this process is killed.
    down = shlex.join([str(scripts / "node-down"), "--home", home])
    guard = subprocess.Popen(
        ["sh", "-c", f"cat >/dev/null; exec {down}"], stdin=subprocess.PIPE, start_new_session=True
    )
    assert guard.stdin is not None
    try:
        _run([str(scripts / "node-up"), "--home", home, *images], timeout_s=600)
        yield Node([scripts / "in-node", "--home", home])
    finally:
        guard.stdin.close()
        if guard.wait(PATIENCE_S):
            print(f"{down} failed", file=sys.stderr)


def _run(command: Sequence[str], stdin: str = "", timeout_s: float = PATIENCE_S) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise CommandFailed(f"{' '.join(command[:8])}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout
