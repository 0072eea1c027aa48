"""The store of Ray's state on a real Valkey: users follow the RayClusters of an API server, with the chart's rights."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.controller.conftest import Start
from tests.support.accounts import NAMESPACE
from tests.support.kube import Cluster
from tests.support.kubectl import await_kinds
from tests.support.raystore import ADMIN, RayStore
from tests.support.release import raycluster_crd
from tests.support.waiting import until

MODEL = {
    "apiVersion": "cloudach.dev/v1alpha1",
    "kind": "Model",
    "metadata": {"name": "kept", "namespace": NAMESPACE},
    "spec": {"source": {"simulator": {}}},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RayStore]:
    running = RayStore(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def kinds(cluster: Cluster) -> Iterator[None]:
    cluster.kubectl.apply(raycluster_crd())
    await_kinds(cluster.kubectl, "rayclusters.ray.io")
    yield
    cluster.kubectl("delete", "crd", "rayclusters.ray.io")
    cluster.kubectl("-n", NAMESPACE, "delete", "secret", "cloudach-gcs-store", "--ignore-not-found")


def ray_cluster(name: str, of: str = "kept", kind: str = "RayService") -> dict[str, Any]:
    labels = {"ray.io/originated-from-cr-name": of, "ray.io/originated-from-crd": kind}
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": meta, "spec": {}}


def test_users_follow_the_clusters_of_a_model(
    cluster: Cluster, kinds: None, start: Start, store: RayStore, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(ADMIN)
    address = {"address": f"127.0.0.1:{store.port}", "password_file": str(secret), "poll_s": 0.2}
    start(gcs_store=address)
    kubectl, admin = cluster.kubectl, store.client("default", ADMIN)
    kubectl.apply(MODEL)

    def get(kind: str, name: str) -> Any:
        return kubectl.get("-n", NAMESPACE, kind, name)

    user = f"{NAMESPACE}.kept.{get('model', 'kept')['metadata']['uid']}"
    until(lambda: user in admin.acl_users(), within_s=60)
    until(lambda: "kept" in get("secret", "cloudach-gcs-store")["data"], within_s=60)
    until(lambda: kubectl("-n", NAMESPACE, "get", "rayservice", "kept", "--ignore-not-found") != "", within_s=60)
    options = get("rayservice", "kept")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert (options["redisAddress"], options["redisUsername"]) == (address["address"], {"value": user})

    kubectl.apply(ray_cluster("kept-a"), ray_cluster("job-a", kind="RayJob"), ray_cluster("other-a", of="other"))
    uids = {name: get("raycluster", name)["metadata"]["uid"] for name in ("kept-a", "job-a", "other-a")}
    password = b64decode(get("secret", "cloudach-gcs-store")["data"]["kept"]).decode()
    head = store.client(user, password)
    until(lambda: f"~RAY{uids['kept-a']}@*" in admin.acl_getuser(user)["keys"], within_s=60)
    head.hset(f"RAY{uids['kept-a']}@KV", "a", "b")
    assert not [uid for uid in (uids["job-a"], uids["other-a"]) if uid in str(admin.acl_getuser(user))]

    kubectl("-n", NAMESPACE, "delete", "model", "kept")
    kubectl("-n", NAMESPACE, "delete", "raycluster", "--all")
    until(lambda: user not in admin.acl_users(), within_s=60)
    assert admin.keys() == []
    until(lambda: "kept" not in get("secret", "cloudach-gcs-store").get("data", {}), within_s=60)
