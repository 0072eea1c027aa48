"""Which key a Model's status speaks of, while its clusters change. The API server is on paper."""

from __future__ import annotations

import copy
from base64 import b64encode
from typing import Any, cast

from cloudach_controller.companions import Companions
from cloudach_controller.dashboard import Dashboard
from cloudach_controller.engine_keys import EngineKeys
from cloudach_controller.kube.client import Kind, KubeClient
from cloudach_controller.kube.events import Events
from cloudach_controller.observe import Observer
from cloudach_controller.reconcile import Cache, Reconciler
from cloudach_controller.settings import parse
from cloudach_model_api.keys import key_id

KEY = ("llm", "qwen")
SECRET = {"data": {"qwen": b64encode(b"k" * 64).decode()}}
OFF = "inference: {engine_keys: false}"


class Paper:
    """What the controller has applied, by kind. There is nothing to read."""

    def __init__(self) -> None:
        self.applied: dict[str, Any] = {}

    async def apply(self, kind: Kind, namespace: str, name: str, body: dict[str, Any], sub: str = "") -> dict[str, Any]:
        self.applied[kind.plural + sub] = body
        return copy.deepcopy(body)

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        return body


def model(image: str, status: dict[str, Any] | None = None) -> dict[str, Any]:
    metadata = {
        "name": "qwen",
        "namespace": "llm",
        "uid": "u1",
        "generation": 1,
        "finalizers": ["cloudach.dev/drain"],
        "annotations": {"cloudach.dev/allow-replacement": "always"},
    }
    spec = {"source": {"simulator": {}}, "image": image}
    return {"metadata": metadata, "spec": spec, "status": status or {}}


async def look(
    obj: dict[str, Any], ray_service: dict[str, Any] | None, pods: list[dict[str, Any]], settings: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Model's status, and its RayService, after one look of the controller."""
    paper, read = Paper(), parse(settings)
    api = cast(KubeClient, paper)
    cache = Cache(
        models={KEY: obj},
        ray_services={KEY: ray_service} if ray_service is not None else {},
        pods={("llm", f"worker-{number}"): pod for number, pod in enumerate(pods)},
        kuberay_missing=lambda: False,
    )
    observer = Observer(api, cast(Dashboard, None), read)
    companions = Companions(api, read, uses={}, uses_missing=lambda: False, policies={})
    keys = EngineKeys(api, {("llm", "cloudach-engine-keys"): SECRET}, unseen=lambda: False)
    await Reconciler(api, cache, observer, Events(api, instance="i"), companions, keys, read).reconcile(KEY)
    status = paper.applied["modelsstatus"]["status"] if "modelsstatus" in paper.applied else obj["status"]
    return status, paper.applied.get("rayservices") or cast(dict[str, Any], ray_service)


def pod_of(ray_service: dict[str, Any]) -> dict[str, Any]:
    """A worker as KubeRay makes it."""
    return cast(dict[str, Any], ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"])


async def test_gateways_send_the_key_until_the_last_engine_that_asks_for_it_is_gone() -> None:
    """The cluster without keys takes over when its weights are loaded; until then the one before it serves."""
    status, locked = await look(model("engine:1"), None, [])
    assert status["engineKey"] == key_id("k" * 64)
    old = pod_of(locked)
    status, open_to_all = await look(model("engine:2", status), locked, [old], OFF)
    assert pod_of(open_to_all)["spec"]["volumes"] != old["spec"]["volumes"], "the replacement has begun"
    assert status["engineKey"] == key_id("k" * 64)
    status, _ = await look(model("engine:2", status), open_to_all, [old, pod_of(open_to_all)], OFF)
    assert status["engineKey"] == key_id("k" * 64)
    status, _ = await look(model("engine:2", status), open_to_all, [pod_of(open_to_all)], OFF)
    assert "engineKey" not in status
