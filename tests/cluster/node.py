"""A cluster with a node, wherever it is: how to run a command that reaches it, and how to give it images.

CLUSTER_EXEC   a prefix that runs a command with KUBECONFIG set and the cluster's Services in reach; on a node: `env`
CLUSTER_LOAD   makes an image archive known to the node: `kind load image-archive`, `k3s ctr images import`
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubectl import CommandFailed, tool

NAMESPACE = "cloudach-test"


class Node:
    def __init__(self, prefix: Sequence[str], load: Sequence[str]) -> None:
        self._prefix = list(prefix)
        self._load = list(load)

    def run(self, *command: str | Path, stdin: str = "", timeout_s: float = 120) -> str:
        """What it prints. Raises CommandFailed."""
        done = subprocess.run(
            [*self._prefix, *map(str, command)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(f"{' '.join(map(str, command[:6]))}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._prefix, *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def kubectl(self, *arguments: str, stdin: str = "", timeout_s: float = 120) -> str:
        return self.run(tool("kubectl"), "-n", NAMESPACE, *arguments, stdin=stdin, timeout_s=timeout_s)

    def helm(self, *arguments: str, stdin: str = "", timeout_s: float = 300) -> str:
        return self.run(tool("helm"), "-n", NAMESPACE, *arguments, stdin=stdin, timeout_s=timeout_s)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)))

    def load(self, archive: Path) -> None:
        done = subprocess.run([*self._load, str(archive)], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise CommandFailed(done.stderr)

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


def require_node() -> Node:
    if "CLUSTER_EXEC" not in os.environ or "CLUSTER_LOAD" not in os.environ:
        pytest.skip(
            "LEFT OUT, needs a cluster with a node: set CLUSTER_EXEC and CLUSTER_LOAD, on k3s CLUSTER_EXEC=env and "
            "CLUSTER_LOAD='k3s ctr images import' (tests/cluster/node.py)"
        )
    return Node(shlex.split(os.environ["CLUSTER_EXEC"]), shlex.split(os.environ["CLUSTER_LOAD"]))
