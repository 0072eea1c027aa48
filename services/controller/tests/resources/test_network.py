"""Who reaches a Model's pods, and what these reach: asked as a network plugin asks the policies."""

from __future__ import annotations

import json
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from cloudach_controller.resources.network import names, policies
from cloudach_controller.settings import parse
from cloudach_model_api.model import Model

HEAD, WORKER = "head", "worker"
METADATA = ("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254")
HUB = {"huggingFace": {"repo": "Qwen/Qwen3-8B"}}
SETTINGS = """
network_policy:
  enabled: true
  gateways: [{podSelector: {matchLabels: {part: gateway}}}]
  controllers: [{podSelector: {matchLabels: {part: controller}}}]
  kuberay: [{podSelector: {matchLabels: {part: kuberay}}}]
  metrics: [{podSelector: {matchLabels: {part: prometheus}}}]
  extra_ingress: [{ports: [{port: 9999}], from: [{podSelector: {matchLabels: {part: guest}}}]}]
  api_server: [{ports: [{port: 6443}], to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]
"""


def model(source: dict[str, Any] | None = None, name: str = "qwen", **spec: Any) -> Model:
    metadata = {"name": name, "namespace": "llm", "uid": "u1"}
    return Model.from_object({"metadata": metadata, "spec": {"source": source or {"simulator": {}}, **spec}})


def pod(node: str = WORKER, name: str = "qwen") -> dict[str, str]:
    return {"cloudach.dev/model": name, "ray.io/node-type": node}


def selected(policy: dict[str, Any], labels: dict[str, str], direction: str) -> bool:
    spec, selector = policy["spec"], policy["spec"]["podSelector"]
    fits = selector["matchLabels"].items() <= labels.items()
    for each in selector.get("matchExpressions", ()):
        assert each["operator"] == "In"
        fits = fits and labels.get(each["key"]) in each["values"]
    return direction in spec["policyTypes"] and fits


def on_port(rule: dict[str, Any], port: int, protocol: str = "TCP") -> bool:
    return "ports" not in rule or any(
        each["port"] == port and each.get("protocol", "TCP") == protocol for each in rule["ports"]
    )


def enters(of: Model, labels: dict[str, str], port: int, *, node: str = WORKER, settings: str = SETTINGS) -> bool:
    """Whether a pod with these labels, of the same namespace, reaches this port of a pod of the Model."""
    chosen = [each for each in policies(of, parse(settings)) if selected(each, pod(node), "Ingress")]
    return not chosen or any(
        on_port(rule, port)
        and any(peer["podSelector"]["matchLabels"].items() <= labels.items() for peer in rule["from"])
        for each in chosen
        for rule in each["spec"].get("ingress", ())
    )


def _is(peer: dict[str, Any], labels: dict[str, str]) -> bool:
    return bool(peer["podSelector"]["matchLabels"].items() <= labels.items())


def leaves(
    of: Model, to: str, port: int, *, node: str = WORKER, protocol: str = "TCP", settings: str = SETTINGS
) -> bool:
    """Whether a pod of this Model reaches this address outside of its own pods."""
    chosen = [each for each in policies(of, parse(settings)) if selected(each, pod(node), "Egress")]
    return not chosen or any(
        on_port(rule, port, protocol) and ("to" not in rule or any(_holds(peer, to) for peer in rule["to"]))
        for each in chosen
        for rule in each["spec"].get("egress", [])
    )


def _holds(peer: dict[str, Any], address: str) -> bool:
    block = peer.get("ipBlock")
    if block is None:
        return False
    it = ip_address(address)
    inside = it.version == ip_network(block["cidr"]).version and it in ip_network(block["cidr"])
    closed = [ip_network(each) for each in block.get("except", ())]
    return inside and not any(it.version == each.version and it in each for each in closed)


ASKED = (8000, 8265, 6379, 10001, 52365, 8080, 44217, 44227, 9999)


@pytest.mark.parametrize(
    ("who", "of_workers", "of_heads"),
    [
        ({"part": "gateway"}, {8000}, {8000}),
        ({"part": "controller"}, set(), {8265}),
        ({"part": "kuberay"}, set(), {8000, 8265}),
        ({"part": "prometheus"}, {8080, 44217, 44227}, {8080, 44217, 44227}),
        ({"part": "guest"}, {9999}, {9999}),
        ({"part": "anybody"}, set(), set()),
        (pod(), set(ASKED), set(ASKED)),  # its own
        (pod(name="other"), set(), set()),  # another Model's, in the same namespace
    ],
)
def test_who_reaches_a_models_pods(who: dict[str, str], of_workers: set[int], of_heads: set[int]) -> None:
    for node, ports in ((WORKER, of_workers), (HEAD, of_heads)):
        assert {port for port in ASKED if enters(model(), who, port, node=node)} == ports


def test_nobody_named_is_nobody() -> None:
    """A rule without `from` would let everybody in."""
    settings = "network_policy: {enabled: true}"
    for port in (8000, 8265, 52365, 8080):
        assert not enters(model(), {"part": "gateway"}, port, settings=settings)
    assert enters(model(), pod(), 6379, settings=settings)


S3 = {"objectStore": {"uri": "s3://b/m"}}
MINIO = {"objectStore": {"uri": "s3://b/m", "endpoint": "http://minio.store:9000"}}
AT_ADDRESS = {"objectStore": {"uri": "s3://b/m", "endpoint": "https://10.1.2.3"}}
PVC = {"pvc": {"claimName": "w"}}
OF_IMAGE: dict[str, Any] = {"source": {"image": {"path": "/m"}}, "image": "example.com/own:1"}
MODELS: dict[str, tuple[Model, set[tuple[str, int]]]] = {
    "a simulator": (model(), set()),
    "a claim": (model(PVC), set()),
    "an image": (model(**OF_IMAGE), set()),
    "the hub": (model(HUB), {("8.8.8.8", 443)}),
    "a bucket of a cloud": (model(S3), {("8.8.8.8", 443)}),
    "a store by its name": (model(MINIO), {(to, 9000) for to in ("8.8.8.8", "10.1.2.3", "192.168.1.1", "fc00::1")}),
    "a store by its address": (model(AT_ADDRESS), {("10.1.2.3", 443)}),
    "an adapter of the hub": (model(PVC, lora={"adapters": [{"name": "a", "source": HUB}]}), {("8.8.8.8", 443)}),
    "media by URL": (
        model(PVC, allowedMediaDomains=["images.example.com", "x.example:8443"]),
        {("8.8.8.8", 80), ("8.8.8.8", 443), ("8.8.8.8", 8443)},
    ),
}


@pytest.mark.parametrize(("of", "reached"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("node", [HEAD, WORKER])
def test_engines_reach_what_the_spec_names(of: Model, reached: set[tuple[str, int]], node: str) -> None:
    addresses = ("8.8.8.8", "10.1.2.3", "192.168.1.1", "fc00::1", *METADATA)
    ports = (80, 443, 9000, 8443, 10250, 8000, 6379)
    found = {(to, port) for to in addresses for port in ports if leaves(of, to, port, node=node)}
    assert found == reached
    for port in (53, 5353):
        assert leaves(of, "10.96.0.10", port, protocol="UDP", node=node), "names are looked up"


@pytest.mark.parametrize("source", [{"simulator": {}}, HUB, S3, MINIO, PVC])
@pytest.mark.parametrize("node", [HEAD, WORKER])
def test_no_pod_reaches_a_clouds_metadata(source: dict[str, Any], node: str) -> None:
    settings = f"{SETTINGS}\nray: {{gcs_redis_address: 'redis.ray:6380'}}"
    of = model(source, allowedMediaDomains=["*"]) if "simulator" not in source else model(source)
    reached = [
        (to, port)
        for to in METADATA
        for port in (80, 443, 6380, 9000)
        if leaves(of, to, port, node=node, settings=settings)
    ]
    assert reached == []


def test_only_heads_reach_the_api_server_and_the_store_of_rays_state() -> None:
    settings = f"{SETTINGS}\nray: {{gcs_redis_address: 'redis.ray:6380'}}"
    for node, wanted in ((HEAD, True), (WORKER, False)):
        assert leaves(model(), "10.0.0.1", 6443, node=node, settings=settings) is wanted
        assert leaves(model(), "10.9.9.9", 6380, node=node, settings=settings) is wanted
    # KubeRay's Job has the labels of the head's template, but for this one.
    assert leaves(model(), "10.9.9.9", 6380, node="redis-cleanup", settings=settings)


def test_only_heads_reach_the_charts_store_and_nothing_beside_it() -> None:
    pods = {"podSelector": {"matchLabels": {"part": "raystore"}}}
    settings = f"{SETTINGS}\ngcs_store: {{address: 'store.x.svc:6379', pods: [{json.dumps(pods)}]}}"

    def to_store(node: str) -> list[dict[str, Any]]:
        chosen = [each for each in policies(model(), parse(settings)) if selected(each, pod(node), "Egress")]
        rules = [rule for each in chosen for rule in each["spec"].get("egress", ())]
        return [rule for rule in rules if rule.get("ports") == [{"port": 6379, "protocol": "TCP"}]]

    for node in (HEAD, "redis-cleanup"):
        assert [rule["to"] for rule in to_store(node)] == [[pods]]
        assert not leaves(model(), "10.9.9.9", 6379, node=node, settings=settings)
    assert to_store(WORKER) == []


def test_a_store_may_be_pods_of_the_cluster_also_for_cilium() -> None:
    """It does not count their addresses to any range, not even to all of them."""

    def ports(of: Model, node: str, settings: str = SETTINGS) -> set[int]:
        chosen = [each for each in policies(of, parse(settings)) if selected(each, pod(node), "Egress")]
        rules = [rule for each in chosen for rule in each["spec"].get("egress", ())]
        return {
            one["port"] for rule in rules if {"namespaceSelector": {}} in rule.get("to", ()) for one in rule["ports"]
        }

    redis = f"{SETTINGS}\nray: {{gcs_redis_address: 'redis.ray:6380'}}"
    assert ports(model(MINIO), WORKER) == {9000}
    assert (ports(model(HUB), HEAD, redis), ports(model(HUB), WORKER, redis)) == ({6380}, set())
    assert ports(model(AT_ADDRESS), WORKER) == set()


def test_without_ipv4_the_public_internet_is_behind_nat64_and_what_is_closed_stays_closed() -> None:
    assert leaves(model(S3), "64:ff9b::808:808", 443)
    for closed in ("10.1.2.3", "192.168.1.1", "169.254.169.254", "168.63.129.16"):
        assert not leaves(model(S3), str(IPv6Address(int(IPv6Address("64:ff9b::")) | int(ip_address(closed)))), 443)
    assert not leaves(model(MINIO), "64:ff9b::a9fe:a9fe", 9000)


def test_openings_and_what_else_is_closed() -> None:
    more = f"{SETTINGS}  also_closed: [8.8.0.0/16]\n  extra_egress: [{{to: [{{ipBlock: {{cidr: 10.7.0.0/16}}}}]}}]\n"
    assert not leaves(model(HUB), "8.8.8.8", 443, settings=more)
    assert leaves(model(HUB), "9.9.9.9", 443, settings=more)
    assert leaves(model(), "10.7.1.1", 3128, settings=more)


def test_egress_and_all_of_it_can_be_switched_off() -> None:
    assert leaves(model(), "169.254.169.254", 80, settings=f"{SETTINGS}  egress: false\n")
    assert policies(model(), parse("")) == []


def test_a_head_that_may_reach_nothing_more_has_no_empty_rules() -> None:
    """The API server drops empty lists, so the policy would never be as wanted."""
    head, engines = policies(model(), parse("network_policy: {enabled: true}"))
    assert head["spec"].keys() == {"podSelector", "policyTypes"}
    assert engines["spec"].keys() == {"podSelector", "policyTypes", "ingress", "egress"}


def test_no_two_models_have_a_policy_of_the_same_name() -> None:
    of = [name for each in ("x", "x-head", "x-engines") for name in names(model(name=each))]
    assert len(set(of)) == len(of)


def test_policies_go_with_their_model() -> None:
    for policy in policies(model(), parse(SETTINGS)):
        assert policy["metadata"]["ownerReferences"][0]["uid"] == "u1"
        assert policy["metadata"]["labels"]["cloudach.dev/model"] == "qwen"
