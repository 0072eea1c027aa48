"""The server that the other tests run on: an outage keeps its address and data, and nothing is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kube import KubeFailed, api_server, assets, require_kube
from tests.support.kubectl import CommandFailed

pytestmark = pytest.mark.timeout(600)  # servers start


def test_an_outage_keeps_address_and_data_and_the_end_leaves_nothing() -> None:
    with api_server() as cluster:
        url = cluster.url
        cluster.kubectl("create", "namespace", "kept")
        cluster.stop()
        with pytest.raises(CommandFailed, match="refused"):
            cluster.kubectl("get", "namespaces")
        cluster.start()
        assert cluster.url == url
        assert cluster.kubectl.get("namespace", "kept")["metadata"]["name"] == "kept"
        home = cluster.home
    assert not home.exists()
    assert not [
        process for process in Path("/proc").glob("[0-9]*/cmdline") if str(home).encode() in _command_line(process)
    ]


def test_controllers_make_service_accounts_and_collect_garbage() -> None:
    if not (require_kube() / "kube-controller-manager").is_file():
        pytest.skip("LEFT OUT, needs kube-controller-manager and kube-scheduler in KUBEBUILDER_ASSETS")
    with api_server(controllers=True) as cluster:
        kubectl = cluster.kubectl
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}
        kubectl.apply(owner)
        uid = kubectl.get("configmap", "owner")["metadata"]["uid"]
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
        kubectl.apply({**owner, "metadata": {"name": "owned", "ownerReferences": [reference]}})
        kubectl("delete", "configmap", "owner")
        kubectl("wait", "configmap/owned", "--for=delete", "--timeout=170s")


def test_without_programs_there_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(KubeFailed, match="holds no etcd: set KUBEBUILDER_ASSETS to a folder"):
        assets()
    monkeypatch.delenv("KUBEBUILDER_ASSETS")
    with pytest.raises(pytest.skip.Exception, match="LEFT OUT, needs a Kubernetes API server"):
        require_kube()


def _command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""
