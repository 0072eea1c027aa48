"""One API server for all tests of this folder that install the chart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kube import Cluster, api_server
from tests.support.release import Helm, prepare


@pytest.fixture(scope="package")
def server() -> Iterator[Cluster]:
    with api_server() as running:
        yield running


@pytest.fixture(scope="package")
def cluster(server: Cluster) -> Cluster:
    """With the CRDs that the chart asks for."""
    prepare(server)
    return server


@pytest.fixture
def helm(cluster: Cluster) -> Iterator[Helm]:
    """Helm in the namespace `serving`, where nothing is left of the test before."""
    with Helm(cluster, "serving") as helm:
        yield helm
