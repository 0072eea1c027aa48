"""One server with the CRD for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kube import Cluster, crd_server
from tests.support.kubectl import Kubectl, await_kinds
from tests.support.processes import ROOT

CRD = ROOT / "k8s/crds/models.cloudach.dev.yaml"
USE_CRD = ROOT / "k8s/crds/modeluses.cloudach.dev.yaml"


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with crd_server() as running:
        for crd in (CRD, USE_CRD):
            running.kubectl("apply", "--server-side", "-f", crd)
        await_kinds(running.kubectl, "models.cloudach.dev", "modeluses.cloudach.dev")
        yield running


@pytest.fixture
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """As the administrator, in the namespace `default`; the Models of a test go with it."""
    yield cluster.kubectl
    cluster.kubectl("delete", "models", "--all", "--wait=false")


@pytest.fixture
def crd_file() -> Path:
    return CRD
