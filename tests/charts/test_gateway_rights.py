"""What a gateway's account can do to a Model on a real API server: wake it and say that it is in use, nothing more.

A gateway is what clients talk to, so its account is the one to be stolen. With a right to patch Models it could start
any image as any service account of their namespaces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.charts.rights import GATEWAY, may
from tests.support.release import Helm, model

pytestmark = pytest.mark.timeout(600)

ACCOUNT = "demo-cloudach-gateway"
USE = {
    "apiVersion": "cloudach.dev/v1alpha1",
    "kind": "ModelUse",
    "metadata": {"name": "m", "namespace": "serving", "labels": {"cloudach.dev/model": "m"}},
}
TAKEN_OVER: list[dict[str, Any]] = [
    {"spec": {"image": "example.com/miner:1"}},
    {"spec": {"engine": {"env": [{"name": "A", "value": "1"}]}}},
    {"spec": {"engine": {"args": {"trust_remote_code": True}}}},
    {"spec": {"serviceAccountName": "cluster-admin"}},
    {"spec": {"source": {"simulator": {}}}},
    {"spec": {"replicas": 1000}},
    {"metadata": {"annotations": {"cloudach.dev/allow-replacement": "always"}}},
    {"metadata": {"finalizers": []}},
]


class Gateway:
    """Requests to the API server as the gateway's account."""

    def __init__(self, helm: Helm) -> None:
        self.kubectl = helm.as_account(ACCOUNT)
        self._http = httpx.Client(
            verify=helm.cluster.tls,
            base_url=f"{helm.cluster.url}/apis/cloudach.dev/v1alpha1/namespaces/serving",
            headers={"impersonate-user": f"system:serviceaccount:serving:{ACCOUNT}"},
            trust_env=False,
            timeout=60,
        )

    def close(self) -> None:
        self._http.close()

    def patch(self, path: str, change: dict[str, Any]) -> int:
        """The status of the answer. Not with kubectl, which reads an object before it patches it."""
        kind = {"content-type": "application/merge-patch+json"}
        return self._http.patch(path, content=json.dumps(change), headers=kind).status_code


@pytest.fixture
def gateway(helm: Helm) -> Iterator[Gateway]:
    """The gateway's account, beside a Model `m` with its ModelUse."""
    helm.install()
    helm.kubectl.apply(model("m"))
    helm.kubectl.apply(USE)
    may(helm, ACCOUNT, "serving", GATEWAY)
    account = Gateway(helm)
    yield account
    account.close()
    for kind in ("model", "modeluse"):
        helm.kubectl("-n", "serving", "delete", kind, "m")


def test_it_cannot_change_a_model(helm: Helm, gateway: Gateway) -> None:
    before = helm.get("model", "m")
    status = {"status": {"endpoint": "http://attacker.example:8000"}}
    for change in [*TAKEN_OVER, status]:
        for path in ("models/m", "models/m/status", "models/m/scale"):
            assert gateway.patch(path, change) == 403, (change, path)
    assert gateway.patch("modeluses/m", {"metadata": {"finalizers": ["x.example/hold"]}}) == 403
    for verb in ("create", "delete"):
        done = gateway.kubectl.run("-n", "serving", verb, "-f", "-", stdin=json.dumps(model("m")))
        assert "forbidden" in done.stderr
    after = helm.get("model", "m")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_it_can_wake_a_model_and_say_that_it_is_in_use(helm: Helm, gateway: Gateway) -> None:
    told = {"wakeRequestedAt": "2026-11-30T12:00:00Z", "lastRequestAt": "2026-11-30T12:01:00Z"}
    before = helm.get("modeluse", "m")["metadata"]
    owner = {"apiVersion": "v1", "kind": "Secret", "name": "x", "uid": "x"}
    slipped_in = {"finalizers": ["x.example/hold"], "ownerReferences": [owner], "labels": {"a": "b"}}
    assert gateway.patch("modeluses/m/status", {"status": told, "metadata": slipped_in}) == 200
    use = helm.get("modeluse", "m")
    assert use["status"] == told
    for name in ("finalizers", "ownerReferences", "labels", "generation"):
        assert use["metadata"].get(name) == before.get(name), "rights on the status reach nothing else"
    assert gateway.patch("modeluses/m/status", {"status": {"lastRequestAt": "soon"}}) == 422
