"""A gateway that cannot watch EndpointSlices serves all the same, over the Services of Models, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import yaml

from tests.gateway_models.conftest import NAMESPACE, Site, settings
from tests.support.ports import free_port
from tests.support.stack import create_key, start_gateway
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)

# As the chart of the release before granted them.
RIGHTS = [
    {"apiGroups": ["cloudach.dev"], "resources": ["models"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["cloudach.dev"], "resources": ["modeluses"], "verbs": ["get"]},
    {"apiGroups": ["cloudach.dev"], "resources": ["modeluses/status"], "verbs": ["patch"]},
]
SLICES = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}


def grant(site: Site, *rules: object) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": list(rules)}
    site.kubectl.apply({**role, "metadata": {"name": "old-gateway", "namespace": NAMESPACE}})


@pytest.fixture
def account(site: Site, url: str, tmp_path: Path) -> Path:
    """A kubeconfig of an account with those rights."""
    meta = {"name": "old-gateway", "namespace": NAMESPACE}
    site.kubectl.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    grant(site, *RIGHTS)
    site.kubectl.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "old-gateway"},
            "subjects": [{"kind": "ServiceAccount", "name": "old-gateway", "namespace": NAMESPACE}],
        }
    )
    token = site.kubectl("-n", NAMESPACE, "create", "token", "old-gateway").strip()
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [{"name": "it", "cluster": {"server": url}}],
                "users": [{"name": "it", "user": {"token": token}}],
            }
        )
    )
    return path


def test_without_the_right_to_watch_endpoint_slices(site: Site, account: Path) -> None:
    site.ready("llama")
    site.status("llama", "Ready", ready=1, endpoint=f"{site.sim.url}/")
    port = free_port()
    with start_gateway(settings(account, port)) as gateway:
        old = Site(site.cluster, site.sim, gateway, create_key(gateway), port)
        assert old.code("llama") == (200, None)
        assert old.metric("cloudach_endpoints_watched") == 0
        assert old.metric("cloudach_models_watched") == 1
        ready = httpx.get(f"{gateway.url}/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ok")
        assert f"EndpointSlices cannot be watched in {NAMESPACE}" in ready.json()["endpoints"]
        (said,) = old.logged("EndpointSlices cannot be watched; requests go to the Services of Models")
        assert (said["status"], "forbidden" in said["cause"]) == (403, True)

        grant(site, *RIGHTS, SLICES)  # the upgrade's Role comes after its gateways
        until(lambda: old.metric("cloudach_endpoints_watched") == 1)
        assert json.loads(httpx.get(f"{gateway.url}/readyz").text) == {"status": "ok"}
        assert len(old.logged("EndpointSlices cannot be watched; requests go to the Services of Models")) == 1
