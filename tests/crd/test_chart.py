"""charts/cloudach-crds: the CRD that it installs is upgraded by helm, and kept on uninstall with all Models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.kube import Cluster, api_server
from tests.support.kubectl import await_kinds, checked, run, tool
from tests.support.processes import ROOT

from .cases import model

pytestmark = pytest.mark.timeout(600)  # a server starts

CHART = ROOT / "charts/cloudach-crds"


@pytest.fixture(scope="module")
def builtin() -> Iterator[Cluster]:
    """Helm keeps its releases in Secrets, so this takes a server with all kinds."""
    with api_server() as running:
        yield running


def helm(cluster: Cluster, *args: str | Path) -> str:
    return checked(run(tool("helm"), *args, kubeconfig=cluster.kubeconfig))


def upgrade(cluster: Cluster, chart: Path) -> None:
    # A server that knows no CEL refuses the rules' fields unless it is told to drop them.
    old = ("--server-side=false", "--disable-openapi-validation") if cluster.minor < 28 else ()
    helm(cluster, "upgrade", "--install", "cloudach-crds", chart, *old)


def test_upgraded_by_helm_and_kept_on_uninstall(builtin: Cluster, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(CHART, earlier)
    template = earlier / "templates/models.cloudach.dev.yaml"
    crd = yaml.safe_load(template.read_text())
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["drainSeconds"]
    template.write_text(yaml.safe_dump(crd))

    upgrade(builtin, earlier)
    await_kinds(builtin.kubectl, "models.cloudach.dev")
    builtin.kubectl.apply(model("stays"))
    assert "drainSeconds" not in builtin.kubectl.get("model", "stays")["spec"]

    upgrade(builtin, CHART)
    fields = builtin.kubectl.get("crd", "models.cloudach.dev")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert "drainSeconds" in fields["properties"]["spec"]["properties"]

    said = helm(builtin, "uninstall", "cloudach-crds")
    assert "models.cloudach.dev" in said
    assert "kept" in said
    assert builtin.kubectl.get("model", "stays")["metadata"]["name"] == "stays"


def test_lint() -> None:
    checked(run(tool("helm"), "lint", "--strict", CHART, kubeconfig=ROOT / "nowhere"))
