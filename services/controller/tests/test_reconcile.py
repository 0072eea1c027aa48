"""What the controller does at one look: keys of engines, and who may sleep. The API server is on paper."""

from __future__ import annotations

import asyncio
import copy
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from cloudach_controller.act.companions import Companions
from cloudach_controller.act.endings import Endings
from cloudach_controller.act.engine_keys import EngineKeys
from cloudach_controller.act.events import Events
from cloudach_controller.act.gcs_users import GcsUsers
from cloudach_controller.act.own_tokens import OwnTokens
from cloudach_controller.act.ray_token import RayToken
from cloudach_controller.act.ray_tokens import RayTokens
from cloudach_controller.manager import Manager
from cloudach_controller.observe.dashboard import Dashboard, Unanswered
from cloudach_controller.observe.observer import Observer
from cloudach_controller.reconcile import Cache, Reconciler
from cloudach_controller.resources.additions import is_locked
from cloudach_controller.settings import parse
from cloudach_kube.client import KubeClient
from cloudach_kube.errors import NotFound, Refused, Unreachable
from cloudach_kube.kinds import Kind
from cloudach_model_api.keys import key_id

KEY = ("llm", "qwen")
SECRET = {"data": {"qwen": b64encode(b"k" * 64).decode()}}
OFF = "inference: {engine_keys: false}"


class Paper:
    """What the controller has applied, by kind. There is nothing to read."""

    def __init__(self) -> None:
        self.applied: dict[str, Any] = {}
        self.status: dict[str, Any] = {}
        """Of the RayService."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        raise NotFound(404, name)

    async def apply(self, kind: Kind, namespace: str, name: str, body: dict[str, Any], sub: str = "") -> dict[str, Any]:
        self.applied[kind.plural + sub] = body
        return {**copy.deepcopy(body), **({"status": self.status} if kind.plural == "rayservices" else {})}

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        self.applied[kind.plural] = body
        return body


class Silent:
    async def applications(self, base_url: str, token: str | None) -> dict[str, Any]:
        raise Unanswered(base_url)


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


def without_store(api: KubeClient, *, store: Any = None, unseen: bool = False) -> GcsUsers:
    """`store`: one that is there all the same; it has not answered yet. `unseen`: a right is missing."""
    return GcsUsers(
        api,
        store,
        clusters={},
        models={},
        held={},
        unseen=lambda namespace: unseen,
        settled=lambda namespace: True,
        gone=nowhere,
        changed=lambda: None,
    )


async def nowhere(namespace: str) -> bool:
    return False


async def look(
    obj: dict[str, Any],
    ray_service: dict[str, Any] | None,
    pods: list[dict[str, Any]],
    settings: str = "",
    *,
    paper: Paper | None = None,
    secret: dict[str, Any] = SECRET,
    users: GcsUsers | None = None,
    dashboard: Any = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Model's status, and its RayService, after one look of the controller."""
    paper, read = paper or Paper(), parse(settings)
    paper.status = (ray_service or {}).get("status") or {}
    api = cast(KubeClient, paper)
    cache = Cache(
        models={KEY: obj},
        ray_services={KEY: ray_service} if ray_service is not None else {},
        pods={KEY: pods},
        kuberay_missing=lambda: False,
    )
    own = OwnTokens(api, read.ray)
    observer = Observer(api, cast(Dashboard, dashboard or Silent()), own, read)
    companions = Companions(
        api,
        read,
        uses={},
        uses_missing=lambda namespace: False,
        policies={},
        budgets={},
        budgets_missing=lambda namespace: True,
    )
    keys = EngineKeys(api, {("llm", "cloudach-engine-keys"): secret}, unseen=lambda namespace: False)
    gcs = without_store(api) if users is None else users
    events, endings = Events(api, instance="i"), Endings(api)
    shared = RayToken(api, "cloudach-ray-token", {}, unseen=lambda namespace: True)
    tokens = RayTokens(shared, own, read.ray)
    await Reconciler(api, cache, observer, events, companions, keys, gcs, endings, tokens, read).reconcile(KEY)
    status = paper.applied["modelsstatus"]["status"] if "modelsstatus" in paper.applied else obj["status"]
    return status, paper.applied.get("rayservices") or cast(dict[str, Any], ray_service)


def pod_of(ray_service: dict[str, Any], cluster: str = "") -> dict[str, Any]:
    """A worker as KubeRay makes it."""
    template = copy.deepcopy(ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"])
    template["metadata"]["labels"]["ray.io/cluster"] = cluster
    return cast(dict[str, Any], template)


def with_clusters(ray_service: dict[str, Any], active: str, pending: str = "") -> dict[str, Any]:
    parts = {"activeServiceStatus": {"rayClusterName": active}, "pendingServiceStatus": {"rayClusterName": pending}}
    return {**ray_service, "status": parts}


async def test_gateways_send_the_key_until_engines_that_ask_for_it_serve_no_more() -> None:
    """The cluster without keys takes over when its weights are loaded; until then the one before it serves."""
    status, locked = await look(model("engine:1"), None, [])
    assert status["engineKey"] == key_id("k" * 64)
    old = pod_of(locked, "qwen-1")
    status, open_to_all = await look(model("engine:2", status), with_clusters(locked, "qwen-1"), [old], OFF)
    new = pod_of(open_to_all, "qwen-2")
    assert new["spec"]["volumes"] != old["spec"]["volumes"], "the replacement has begun"
    assert status["engineKey"] == key_id("k" * 64)
    both = with_clusters(open_to_all, "qwen-1", "qwen-2")
    status, _ = await look(model("engine:2", status), both, [new, old], OFF)
    assert status["engineKey"] == key_id("k" * 64)
    # Pods of the dropped cluster stay for their streams, and get no new requests.
    status, _ = await look(model("engine:2", status), with_clusters(open_to_all, "qwen-2"), [old, new], OFF)
    assert "engineKey" not in status


class ReadOnly(Paper):
    """Secrets and ModelUses may be seen, and neither made nor changed."""

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        if kind.plural in ("secrets", "modeluses"):
            raise Refused(403, "forbidden")
        return body

    async def merge(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if kind.plural == "secrets":
            raise Refused(403, "forbidden")
        self.applied[kind.plural] = body
        return body


async def test_a_model_is_told_of_and_deleted_where_keys_may_be_read_alone() -> None:
    status, locked = await look(model("engine:1"), None, [])
    told, _ = await look(model("engine:1", {**status, "readyReplicas": 7}), locked, [], paper=ReadOnly(), secret={})
    assert told["engineKey"] == status["engineKey"]
    assert told["readyReplicas"] == 0
    gone = model("engine:1", status)
    gone["metadata"]["deletionTimestamp"] = "2026-11-01T12:00:00Z"
    gone["metadata"]["resourceVersion"] = "1"
    paper = ReadOnly()
    await look(gone, None, [], paper=paper)
    assert paper.applied["models"]["metadata"]["finalizers"] == []


class Failing(Paper):
    """An admission webhook of one kind fails, which the API server answers with 500."""

    def __init__(self, plural: str) -> None:
        super().__init__()
        self.plural = plural

    def _admit(self, kind: Kind) -> None:
        if kind.plural == self.plural:
            raise Unreachable(500, "failed calling webhook")

    async def apply(self, kind: Kind, namespace: str, name: str, body: dict[str, Any], sub: str = "") -> dict[str, Any]:
        self._admit(kind)
        return await super().apply(kind, namespace, name, body, sub)

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        self._admit(kind)
        return await super().create(kind, namespace, body)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self._admit(kind)


async def test_a_webhook_that_fails_for_policies_is_told_of_and_stops_no_model_that_runs() -> None:
    closed = "network_policy: {enabled: true}"
    _, running = await look(model("engine:1"), None, [], closed)
    status, ray_service = await look(model("engine:2"), running, [], closed, paper=Failing("networkpolicies"))
    assert "failed calling webhook" in str(status["conditions"])
    assert "engine:2" in str(ray_service["spec"]["rayClusterConfig"]), "what the Model asks for is done all the same"
    assert status["observedGeneration"] == 1
    assert "NotTaken" not in str(status["conditions"])
    paper = Failing("networkpolicies")
    status, _ = await look(model("engine:1"), None, [], closed, paper=paper)
    assert "failed calling webhook" in str(status["conditions"])
    assert "rayservices" not in paper.applied, "rather no engine than one that everybody reaches"


async def test_a_webhook_that_fails_for_what_stands_beside_a_model_stops_nothing() -> None:
    _, running = await look(model("engine:1"), None, [])
    status, _ = await look(model("engine:1"), running, [], paper=Failing("secrets"), secret={})
    assert status["observedGeneration"] == 1
    status, ray_service = await look(long_idle(), None, [], paper=Failing("modeluses"))
    assert ray_service["metadata"]["name"] == "qwen"
    assert status["state"] != "Sleeping"


async def test_a_deletion_that_does_not_come_to_an_end_says_why() -> None:
    status, running = await look(model("engine:1"), None, [])
    gone = model("engine:1", status)
    gone["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "1"}
    status, _ = await look(gone, with_clusters(running, "qwen-1"), [], paper=Failing("rayservices"))
    assert status["state"] == "Deleting"
    assert "failed calling webhook" in str(status["conditions"]), "the API server refuses the deletion"
    held = copy.deepcopy(running)
    held["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status, _ = await look(gone, with_clusters(held, "qwen-1"), [])
    reasons = {one["type"]: one["reason"] for one in status["conditions"]}
    assert (status["state"], reasons["Degraded"]) == ("Deleting", "KubeRayBehind"), "KubeRay's finalizer stays"


class Serves:
    """Ray's dashboard of a cluster that has this application, and what it is told."""

    def __init__(self, app: dict[str, Any]) -> None:
        self.app = app
        self.told: list[dict[str, Any]] = []

    async def applications(self, base_url: str, token: str | None) -> dict[str, Any]:
        return {"applications": {"model": {"status": "RUNNING", "deployed_app_config": self.app}}}

    async def configure(self, base_url: str, token: str | None, document: dict[str, Any]) -> None:
        self.told.append(document)


@pytest.mark.parametrize(
    ("observed", "changed", "tells"),
    [
        (1, {"deployments": [{"name": "x", "autoscaling_config": {"min_replicas": 3}}]}, 1),
        (1, {}, 0),
        (0, {"deployments": [{"name": "x", "autoscaling_config": {"min_replicas": 3}}]}, 0),
        (1, {"args": {}, "deployments": []}, 0),
    ],
    ids=["other counts", "as given", "KubeRay has not seen it yet", "other arguments are KubeRay's to roll out"],
)
async def test_counts_from_during_a_replacement_that_was_taken_back_do_not_stay(
    observed: int, changed: dict[str, Any], tells: int
) -> None:
    """KubeRay gave that cluster the same text before the replacement, so it does not give it again."""
    settings = "ray: {token_auth: false}"
    status, made = await look(model("engine:1"), None, [], settings)
    made = with_clusters(made, "qwen-1")
    _, settled = await look(model("engine:1", status), made, [], settings)
    settled = with_clusters({**made, **settled}, "qwen-1")
    settled["metadata"]["generation"] = 1
    settled["status"]["observedGeneration"] = observed
    app = json.loads(settled["spec"]["serveConfigV2"])["applications"][0]
    serves = Serves(copy.deepcopy(app) | changed)
    await look(model("engine:1", status), settled, [], settings, dashboard=serves)
    assert [document["applications"] for document in serves.told] == [[app]] * tells


class TwoNamespaces(Paper):
    """The Model is in one of them; in the other one the controller may not see the Secret with the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.done = asyncio.Event()

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        if kind.plural == "secrets" and namespace == "other":
            raise Refused(403, "forbidden")
        there = kind.plural == "models" and namespace == "llm"
        obj = model("engine:1")
        return ([obj | {"metadata": {**obj["metadata"], "resourceVersion": "1"}}] if there else []), "1"

    async def watch(
        self, kind: Kind, namespace: str | None, since: str, *, selector: str = "", name: str = ""
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        await asyncio.Event().wait()
        yield "", {}

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        raise NotFound(404, name)

    async def apply(self, kind: Kind, namespace: str, name: str, body: dict[str, Any], sub: str = "") -> dict[str, Any]:
        self.done.set()
        return await super().apply(kind, namespace, name, body, sub)


async def test_rights_that_one_namespace_lacks_leave_the_engines_of_the_others_locked() -> None:
    paper, settings = TwoNamespaces(), parse("kubernetes: {namespaces: [llm, other]}")
    api = cast(KubeClient, paper)
    tokens = OwnTokens(api, settings.ray)
    observer = Observer(api, cast(Dashboard, None), tokens, settings)
    running = asyncio.create_task(Manager(api, observer, Events(api, instance="i"), tokens, settings).run())
    await asyncio.wait_for(paper.done.wait(), 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert is_locked(paper.applied["rayservices"]["spec"]["rayClusterConfig"])


def long_idle() -> dict[str, Any]:
    obj = model("engine:1", {"state": "Ready", "readyReplicas": 1})
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    obj["spec"]["autoscaling"] = {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 60}
    return obj


async def test_a_model_runs_on_where_no_modeluse_may_be_made() -> None:
    settings = f"{OFF}\nray: {{token_auth: false}}"
    status, ray_service = await look(long_idle(), None, [], settings, paper=ReadOnly())
    assert ray_service["metadata"]["name"] == "qwen"
    assert status["state"] != "Sleeping"


async def test_a_model_in_use_is_not_put_to_sleep_by_the_look_that_makes_its_modeluse() -> None:
    """After an upgrade: its gateways have not been able to tell for a while. So too when minReplicas becomes 0."""
    paper, obj = Paper(), long_idle()
    status, ray_service = await look(obj, None, [], paper=paper)
    options = json.loads(ray_service["spec"]["serveConfigV2"])["applications"][0]["deployments"][0]
    assert options["autoscaling_config"]["min_replicas"] == 1
    assert status["state"] != "Sleeping"
    assert paper.applied["modeluses"]["metadata"]["name"] == "qwen"


STORE = "gcs_store: {address: 'store.cloudach.svc:6379'}"


async def test_a_new_cluster_keeps_its_state_in_the_store_and_one_that_runs_is_not_replaced_for_it() -> None:
    status, old = await look(model("engine:1"), None, [])
    api = cast(KubeClient, Paper())
    users = without_store(api, store=object())
    _, same = await look(model("engine:1", status), old, [], STORE, users=users)
    assert "gcsFaultToleranceOptions" not in same["spec"]["rayClusterConfig"]
    assert same["spec"]["rayClusterConfig"] == old["spec"]["rayClusterConfig"]
    _, new = await look(model("engine:2", status), old, [], STORE, users=users)
    assert new["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"] == {
        "redisAddress": "store.cloudach.svc:6379",
        "redisUsername": {"value": "llm.qwen.u1"},
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "cloudach-gcs-store", "key": "qwen"}}},
    }
    _, again = await look(model("engine:2", status), new, [], "", users=users)
    assert again["spec"]["rayClusterConfig"] == new["spec"]["rayClusterConfig"], "without the store it stays, too"


async def test_new_clusters_do_without_the_store_where_a_right_is_missing() -> None:
    """After an upgrade, rights that others make may come later: a head that never gets its password would not start."""
    users = without_store(cast(KubeClient, Paper()), store=object(), unseen=True)
    _, made = await look(model("engine:1"), None, [], STORE, users=users)
    assert "gcsFaultToleranceOptions" not in made["spec"]["rayClusterConfig"]


async def test_a_ray_service_that_somebody_deleted_is_told_of_after_a_restart_too() -> None:
    """What was seen before stands in the Model's status alone, and no controller has to have lived to see it."""
    status, made = await look(model("engine:1", {"observedGeneration": 1}), None, [])
    degraded = next(one for one in status["conditions"] if one["type"] == "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "RayServiceMissing")
    assert made is not None, "it is made anew"
    status, _ = await look(model("engine:1", status), made, [])
    degraded = next(one for one in status["conditions"] if one["type"] == "Degraded")
    assert degraded["reason"] != "RayServiceMissing"


async def test_a_ray_service_that_never_was_is_not_missing() -> None:
    status, _ = await look(model("engine:1"), None, [])
    degraded = next(one for one in status["conditions"] if one["type"] == "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("False", "AsExpected")
    assert status["observedGeneration"] == 1
