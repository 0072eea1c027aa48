"""charts/cloudach-crds: upgraded by helm, kept on uninstall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kube import Cluster, api_server
from tests.support.kubectl import checked, run, tool
from tests.support.processes import ROOT

CHART = ROOT / "charts/cloudach-crds"


@pytest.fixture(scope="module")
def builtin() -> Iterator[Cluster]:
    with api_server() as running:
        yield running


def helm(cluster: Cluster, *args: str | Path) -> str:
    return checked(run(tool("helm"), *args, kubeconfig=cluster.kubeconfig))
