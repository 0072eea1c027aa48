"""The controller's work on a real API server, with the rights that the chart gives it; KubeRay is on paper."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudach_controller.decide.drift import covers
from cloudach_controller.resources.network import policies
from cloudach_controller.settings import parse
from cloudach_model_api import Model
from cloudach_model_api.keys import key_id

from tests.controller.shop import Shop, model
from tests.support.accounts import NAMESPACE
from tests.support.kube import Cluster
from tests.support.kuberay.paper import PATIENCE_S, Paper
from tests.support.kuberay.reconcile import as_go_has_it
from tests.support.waiting import until

from .conftest import Start

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster)


def override(paper: Paper, name: str = "sim") -> dict[str, Any]:
    found: dict[str, Any] = paper.applied[name][-1]["applications"][0]["deployments"][0]
    return found


def test_a_model_becomes_a_ray_service_and_tells_how_it_does(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(replicas=2, id="Sim/One"))
    start()
    status = shop.state("Ready", ready=2)
    assert status["endpoint"] == f"http://sim-serve-svc.{NAMESPACE}.svc:8000"
    assert (status["id"], status["upstreamModel"], status["desiredReplicas"]) == ("Sim/One", "sim", 2)
    assert shop.condition("Ready").startswith("True ReplicasReady")
    service = shop.get("rayservice")
    assert service["metadata"]["ownerReferences"][0]["kind"] == "Model"
    assert service["spec"]["rayClusterConfig"]["authOptions"]["secretName"].startswith("sim-ray-token-")
    columns = shop.run("get", "model", "sim").splitlines()[1].split()
    assert columns[:5] == ["sim", "Sim/One", "2", "2", "Ready"]
    until(lambda: shop.events(reason="ReplicasReady"), "the event")
    # The dashboard was asked with the token that is in the Secret, and with no other.
    (token,) = paper.tokens
    assert len(token) == 64


def test_scaling_changes_the_replica_count_and_nothing_else(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(replicas=1))
    start()
    shop.state("Ready", ready=1)
    before = shop.get("rayservice")
    shop.run("scale", "model/sim", "--replicas=3")
    shop.state("Ready", ready=3)
    shop.run("scale", "model/sim", "--replicas=1")
    shop.state("Ready", ready=1)
    bounds = [one["applications"][0]["deployments"][0]["autoscaling_config"] for one in paper.applied["sim"]]
    counts = [one["min_replicas"] for one in bounds]
    assert counts == [1, 3, 1]
    assert len(paper.clusters["sim"]) == 1
    after = shop.get("rayservice")
    assert after["spec"]["serveConfigV2"] == before["spec"]["serveConfigV2"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert as_go_has_it(after["spec"]) == as_go_has_it(before["spec"])
    scale = json.loads(
        shop.kubectl("get", "--raw", f"/apis/cloudach.dev/v1alpha1/namespaces/{NAMESPACE}/models/sim/scale")
    )
    selector = f"cloudach.dev/model=sim,ray.io/node-type=worker,ray.io/cluster={paper.active('sim')}"
    assert scale["status"] == {"replicas": 1, "selector": selector}


def test_a_change_of_the_pods_is_announced_and_waits(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model())
    start()
    shop.state("Ready")
    shop.apply(model(image="example.com/engine:2"))
    until(lambda: "ReplacementPending" in shop.condition("Progressing"), "the announcement")
    _, found, command = shop.condition("Progressing").partition("To allow it: kubectl ")
    assert found
    assert len(paper.clusters["sim"]) == 1
    shop.kubectl(*command.split())  # as it is told
    until(lambda: len(paper.clusters["sim"]) == 2, "the new cluster")
    until(lambda: "UpToDate" in shop.condition("Progressing"), "the end of it")


def test_adapters_are_rolled_out_and_told_of(start: Start, shop: Shop, paper: Paper) -> None:
    def lora(*names: str) -> dict[str, Any]:
        return {"lora": {"adapters": [{"name": name, "source": {"simulator": {}}} for name in names]}}

    shop.apply(model(**lora("sql")))
    start()
    shop.state("Ready")
    until(lambda: shop.status().get("adapters") == ["sql"], "the adapter")
    shop.apply(model(**lora("sql", "chat")))
    until(lambda: shop.status().get("adapters") == ["chat", "sql"], "both adapters")
    assert len(paper.clusters["sim"]) == 1
    asked = [config["applications"][0]["args"]["lora"]["adapters"] for config in paper.applied["sim"]]
    assert asked == [[{"name": "sql"}], [{"name": "chat"}, {"name": "sql"}]]
    paper.broken["sim"] = "AdapterError: LoRA adapter 'chat': there is no adapter_config.json in /adapters/chat"
    until(lambda: "AdapterNotLoaded" in shop.condition("Degraded"), "the condition")
    assert "LoRA adapter 'chat': there is no adapter_config.json" in shop.condition("Degraded")


def test_a_deleted_ray_service_is_made_again(start: Start, shop: Shop) -> None:
    shop.apply(model())
    start()
    shop.state("Ready")
    first = shop.get("rayservice")["metadata"]["uid"]
    shop.run("delete", "rayservice", "sim")
    until(lambda: shop.get("rayservice").get("metadata", {}).get("uid", first) != first, "another RayService")
    shop.state("Ready", ready=1)
    until(lambda: shop.events(reason="RayServiceMissing"), "the event")


def test_a_deleted_token_is_made_again_as_it_was(start: Start, shop: Shop) -> None:
    """The pods that run know no other. It is the one that Models share, as those of a release before do."""
    shop.apply(model())
    start(ray={"token_per_model": False})
    shop.state("Ready", ready=1)
    before = shop.get("secret", "cloudach-ray-token")
    shop.run("delete", "secret", "cloudach-ray-token")
    again = until(lambda: shop.get("secret", "cloudach-ray-token"), "the Secret")
    assert again["metadata"]["uid"] != before["metadata"]["uid"]
    assert again["data"] == before["data"]


def test_what_another_writer_changes_is_put_right_and_what_it_adds_stays(start: Start, shop: Shop) -> None:
    shop.apply(model())
    start()
    shop.state("Ready")
    asked = shop.get("rayservice")["spec"]["serveConfigV2"]
    change = {"metadata": {"labels": {"team": "a"}}, "spec": {"serveConfigV2": asked.replace(": 1", ": 2")}}
    shop.run("patch", "rayservice", "sim", "--type=merge", "-p", json.dumps(change))
    until(lambda: shop.get("rayservice")["spec"]["serveConfigV2"] == asked, "our serve config")
    assert shop.get("rayservice")["metadata"]["labels"]["team"] == "a"


def test_deletion_waits_for_the_streams(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(replicas=2, drainSeconds=600))
    start()
    shop.state("Ready", ready=2)
    paper.held.add("sim")
    shop.run("delete", "model", "sim", "--wait=false")
    until(lambda: override(paper).get("autoscaling_config", {}).get("initial_replicas") == 0, "replicas told to go")
    until(lambda: "Replicas that are left: 2." in shop.condition("Progressing"), "the streams that are left")
    assert shop.status()["state"] == "Deleting"
    assert shop.get("rayservice"), "it must stay as long as streams run"
    paper.held.clear()
    until(lambda: not shop.get("model"), "the Model's end")
    assert not shop.get("rayservice")


def test_streams_that_do_not_end_hold_nobody_up_for_ever(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(drainSeconds=0))
    start()
    shop.state("Ready")
    paper.held.add("sim")
    shop.run("delete", "model", "sim", "--wait=false")
    until(lambda: not shop.get("model"), "the Model's end")


def test_sleeping_and_waking(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(autoscaling={"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 600}))
    start()
    shop.state("Ready", ready=1)
    shop.run("patch", "model", "sim", "--type=merge", "-p", '{"spec": {"autoscaling": {"idleSeconds": 10}}}')
    shop.state("Sleeping", ready=0)
    assert shop.condition("Ready").startswith("False Sleeping")
    use = until(lambda: shop.get("modeluse"), "the object that gateways mark")
    assert use["metadata"]["ownerReferences"][0]["uid"] == shop.get("model")["metadata"]["uid"]

    def wish(ahead_s: float) -> str:
        wanted = _now(ahead_s=ahead_s)
        told = json.dumps({"status": {"wakeRequestedAt": wanted}})
        shop.run("patch", "modeluse", "sim", "--subresource=status", "--type=merge", "-p", told)
        return wanted

    wish(-3600)  # by a gateway whose clock is behind
    shop.state("Ready", ready=1)
    # By a gateway whose clock is ahead, lest it sleeps again before we look.
    wanted = wish(600)
    until(lambda: shop.status().get("wakeRequestedAt") == wanted, "the wish is told of")
    shop.state("Ready", ready=1)
    assert paper.replicas("sim") == 1
    assert shop.status()["wakeRequestedAt"] == wanted, "gateways learn from it how long it takes to start"


def test_a_gateway_of_the_release_before_wakes_by_an_annotation(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(autoscaling={"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 10}))
    start()
    shop.state("Sleeping", ready=0)
    shop.run("annotate", "model", "sim", f"cloudach.dev/wake-requested-at={_now(ahead_s=600)}")
    shop.state("Ready", ready=1)


def test_a_model_in_use_does_not_sleep_and_its_use_is_kept_again_when_deleted(
    start: Start, shop: Shop, paper: Paper
) -> None:
    shop.apply(model(autoscaling={"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 10}))
    use = {
        "apiVersion": "cloudach.dev/v1alpha1",
        "kind": "ModelUse",
        "metadata": {
            "name": "sim",
            "namespace": NAMESPACE,
            "labels": {"cloudach.dev/model": "sim", "app.kubernetes.io/managed-by": "cloudach-controller"},
            "ownerReferences": [
                {
                    "apiVersion": "cloudach.dev/v1alpha1",
                    "kind": "Model",
                    "name": "sim",
                    "uid": shop.get("model")["metadata"]["uid"],
                }
            ],
        },
    }
    shop.kubectl.apply(use)
    told = json.dumps({"status": {"lastRequestAt": _now(ahead_s=1800)}})
    shop.run("patch", "modeluse", "sim", "--subresource=status", "--type=merge", "-p", told)
    start()
    shop.state("Ready", ready=1)
    created = shop.get("model")["metadata"]["creationTimestamp"]
    until(lambda: _age_s(created) > 12, "longer than its idle time")
    assert shop.status()["state"] == "Ready"
    shop.run("delete", "modeluse", "sim")
    shop.state("Sleeping", ready=0)
    assert shop.get("modeluse"), "made again"


def test_who_holds_a_name_keeps_it_and_both_say_so(start: Start, shop: Shop) -> None:
    """Also after another controller has begun. When the holder gives the name up, the other one gets it by itself."""
    shop.apply(model("old"))
    first = start()
    shop.state("Ready", "old")
    shop.apply(model("young", aliases=["chat"]))
    shop.state("Ready", "young")
    until(lambda: shop.status("young").get("names") == ["young", "chat"], "the names")
    shop.apply(model("old", aliases=["chat"]))
    until(lambda: "'chat' belongs to serving/young." in shop.condition("Degraded", "old"), "the older one is refused")
    until(lambda: "serving/old asks for 'chat'" in shop.condition("Degraded", "young"), "the holder is told")
    first.stop(PATIENCE_S)
    start()
    shop.run("scale", "model/old", "--replicas=2")
    shop.state("Degraded", "old", ready=2)
    assert (shop.status("old")["names"], shop.status("young")["names"]) == (["old"], ["young", "chat"])
    shop.apply(model("young", aliases=["talk"]))
    until(lambda: shop.status("old")["names"] == ["old", "chat"], "the name that was given up")
    shop.state("Ready", "old", ready=2)
    until(lambda: shop.condition("Degraded", "young").startswith("False AsExpected"), "nobody wants a name of it")
    shop.run("delete", "model", "old", f"--timeout={PATIENCE_S:g}s")
    shop.apply(model("young", aliases=["chat"]))
    until(lambda: shop.status("young")["names"] == ["young", "chat"], "the name of one that is gone")


def test_each_model_gets_a_key_of_its_own(start: Start, shop: Shop) -> None:
    def keys() -> dict[str, str]:
        data = shop.get("secret", "cloudach-engine-keys").get("data") or {}
        return {name: b64decode(value).decode() for name, value in data.items()}

    shop.apply(model("one"))
    shop.apply(model("two"))
    first = start()
    shop.state("Ready", "one")
    shop.state("Ready", "two")
    made = keys()
    assert set(made) == {"one", "two"}
    assert all(len(bytes.fromhex(key)) == 32 for key in made.values())
    assert made["one"] != made["two"]
    assert shop.status("one")["engineKey"] == key_id(made["one"])
    assert made["one"] not in json.dumps([shop.get("model", "one"), shop.get("rayservice", "one")])
    first.stop(PATIENCE_S)
    start()
    shop.run("scale", "model/one", "--replicas=2")
    shop.state("Ready", "one", ready=2)
    assert keys() == made, "another controller keeps them"
    # By hand, as docs/kubernetes.md has it: gateways are told at once.
    other = {"data": {"one": b64encode(b"ab" * 32).decode(), "one.also": b64encode(made["one"].encode()).decode()}}
    shop.run("patch", "secret", "cloudach-engine-keys", "--type=merge", "-p", json.dumps(other))
    until(lambda: shop.status("one")["engineKey"] == key_id("ab" * 32), "the new key's id")
    shop.run("delete", "model", "one", f"--timeout={PATIENCE_S:g}s")
    until(lambda: set(keys()) == {"two"}, "its keys' end")


def test_each_model_has_network_policies_of_its_own(start: Start, shop: Shop) -> None:
    def policy(name: str) -> dict[str, Any]:
        spec: dict[str, Any] = shop.get("networkpolicy", name).get("spec") or {}
        return spec

    peers = {"gateways": [{"podSelector": {"matchLabels": {"part": "gateway"}}}]}
    shop.apply(model())
    first = start(network_policy={"enabled": True, **peers})
    shop.state("Ready")
    assert policy("sim.engines")["podSelector"] == {"matchLabels": {"cloudach.dev/model": "sim"}}
    assert policy("sim.engines")["policyTypes"] == ["Ingress", "Egress"]
    assert policy("sim.head")["podSelector"]["matchLabels"] == {"cloudach.dev/model": "sim"}
    version = shop.get("networkpolicy", "sim.engines")["metadata"]["resourceVersion"]
    open_to_all = {"spec": {"ingress": [{}]}}
    shop.run("patch", "networkpolicy", "sim.engines", "--type=merge", "-p", json.dumps(open_to_all))
    until(lambda: len(policy("sim.engines")["ingress"]) == 2, "what somebody opened is closed again")
    shop.run("delete", "networkpolicy", "sim.engines")
    until(lambda: policy("sim.engines"), "what somebody deleted is made again")
    assert shop.get("networkpolicy", "sim.engines")["metadata"]["resourceVersion"] != version
    first.stop(PATIENCE_S)
    start()  # without policies
    until(lambda: not policy("sim.engines") and not policy("sim.head"), "their end")
    assert shop.state("Ready")


def test_the_api_server_takes_the_policies_of_all_kinds_of_models(cluster: Cluster) -> None:
    egress = {"ports": [{"port": 6443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    ray = {"gcs_redis_address": "redis.ray:6379"}
    settings = parse(json.dumps({"network_policy": {"enabled": True, "api_server": [egress]}, "ray": ray}))
    hub = {"huggingFace": {"repo": "a/b"}}
    stores = [{"uri": "s3://b/m"}, {"uri": "s3://b/m", "endpoint": "http://minio:9000"}]
    stores += [{"uri": "s3://b/m", "endpoint": "https://[fd00::7]:8443"}]
    for source in ({"simulator": {}}, hub, *({"objectStore": store} for store in stores)):
        media = {} if "simulator" in source else {"allowedMediaDomains": ["images.example.com"]}
        of = Model.from_object(model(source=source, **media))
        for policy in policies(of, settings):
            policy["metadata"]["ownerReferences"][0]["uid"] = "u"
            said = cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(policy))
            assert covers(json.loads(said), policy), "else it would be applied again and again"


def test_engines_without_their_policies_are_not_begun(start: Start, shop: Shop, cluster: Cluster) -> None:
    """Here the API server refuses one for its content; without the right to make them it is the same."""
    shop.apply(model())
    start(network_policy={"enabled": True, "extra_ingress": [{"from": [{"ipBlock": {"cidr": "nonsense"}}]}]})
    until(lambda: "networkpolicies" in shop.condition("Degraded"), "the refusal")
    assert not shop.get("rayservice")


def test_switched_off_and_on(start: Start, shop: Shop) -> None:
    shop.apply(model(replicas=0))
    start()
    shop.state("Off")
    assert shop.condition("Ready").startswith("False ScaledToZero")
    shop.run("scale", "model/sim", "--replicas=1")
    shop.state("Ready", ready=1)


def test_what_the_engine_says_reaches_the_operator(start: Start, shop: Shop, paper: Paper) -> None:
    paper.broken["sim"] = "Traceback\nhub.GatedRepoError: 401 Client Error. Access to model x/y is restricted"
    shop.apply(model())
    start()
    shop.state("Failed")
    found = shop.condition("Degraded")
    assert found.startswith("True WeightsGated")
    assert "Access to model x/y is restricted" in found
    assert until(lambda: shop.events(reason="WeightsGated"), "the event")[0]["type"] == "Warning"
    paper.broken.clear()
    shop.state("Ready")
    assert shop.condition("Degraded").startswith("False AsExpected")


def test_a_pod_without_a_node(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(replicas=1))
    start()
    shop.state("Ready")
    paper.unschedulable.add("sim")
    shop.run("scale", "model/sim", "--replicas=2")
    until(lambda: "Insufficient nvidia.com/gpu" in shop.condition("Degraded"), "the reason")
    assert shop.condition("Degraded").startswith("True NoGpuNodeFits")
    paper.unschedulable.discard("sim")
    until(lambda: shop.condition("Degraded").startswith("False"), "its end")


def test_a_bad_model_gets_a_condition_that_names_the_field(start: Start, shop: Shop) -> None:
    """This API server is too old for the rules in the CRD, as a customer's may be."""
    shop.apply(model(engine={"args": {"tensor_parallel_size": 2}}))
    start()
    until(lambda: "spec.engine.args" in shop.condition("Degraded"), "the condition")
    assert shop.condition("Degraded").startswith("True InvalidSpec")
    assert not shop.get("rayservice")
    shop.apply(model(engine={"args": {}}))
    shop.state("Ready")
    shop.apply(model(engine={"args": {"port": 1}}))
    until(lambda: "spec.engine.args" in shop.condition("Degraded"), "the condition")
    assert shop.get("rayservice"), "what ran before goes on"
    shop.run("delete", "model", "sim", "--timeout=150s")
    assert not shop.get("rayservice")


def test_two_models_with_one_id(start: Start, shop: Shop) -> None:
    shop.apply(model("a", id="chat"))
    start()
    shop.state("Ready", "a")
    # Times of creation are whole seconds.
    until(lambda: shop.get("model", "a")["metadata"]["creationTimestamp"] < _now(), "another second")
    shop.apply(model("b", id="chat"))
    until(lambda: f"'chat' belongs to {NAMESPACE}/a." in shop.condition("Degraded", "b"), "the condition")
    assert not shop.get("rayservice", "b")
    shop.run("patch", "model", "b", "--type=merge", "-p", '{"spec": {"id": "other"}}')
    shop.state("Ready", "b")


def test_hpa_scales_through_the_subresource_only_the_replicas(start: Start, shop: Shop, paper: Paper) -> None:
    shop.apply(model(replicas=1))
    start()
    shop.state("Ready", ready=1)
    path = f"/apis/cloudach.dev/v1alpha1/namespaces/{NAMESPACE}/models/sim/scale"
    scale = json.loads(shop.kubectl("get", "--raw", path))
    scale["spec"]["replicas"] = 4
    del scale["metadata"]["resourceVersion"]  # the controller may write the status meanwhile
    shop.kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(scale))
    shop.state("Ready", ready=4)
    assert paper.replicas("sim") == 4


def _age_s(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def _now(*, ahead_s: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=ahead_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
