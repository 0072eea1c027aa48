"""Kubernetes' own programs, in the folder that KUBEBUILDER_ASSETS names."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

WANTED = (
    "set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver; "
    "setup-envtest (sigs.k8s.io/controller-runtime/tools/setup-envtest) gets one: "
    "export KUBEBUILDER_ASSETS=$(setup-envtest use -p path)"
)


class KubeFailed(Exception):
    """A server did not come up; the message holds the end of its log."""


def assets() -> Path | None:
    """The programs' folder, or None without KUBEBUILDER_ASSETS. Raises KubeFailed when it lacks the programs."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    if not named:
        return None
    folder = Path(named)
    for program in ("etcd", "kube-apiserver"):
        if not (folder / program).is_file():
            raise KubeFailed(f"KUBEBUILDER_ASSETS={named} holds no {program}: {WANTED}")
    return folder


def require_kube() -> Path:
    """The programs' folder; without one the test is skipped."""
    folder = assets()
    if folder is None:
        pytest.skip(f"LEFT OUT, needs a Kubernetes API server: {WANTED}")
    return folder


def crd_program(programs: Path) -> str | None:
    """The name of the newest separate CRD server in the folder."""
    found = [path.name for path in programs.glob("apiextensions-apiserver-1.*")]
    return max(found, key=lambda name: int(name.rpartition(".")[2]), default=None)


def minor(program: Path) -> int:
    """20 for a program of Kubernetes 1.20. Raises KubeFailed."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    found = re.search(r"v1\.(\d+)", said)
    if found is None:
        raise KubeFailed(f"{program} --version says {said!r}")
    return int(found[1])
