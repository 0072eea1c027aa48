"""Who reaches whom: the policies that the chart renders and the controller makes, against the table of flows."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import yaml
from cloudach_controller import settings as controller_settings
from cloudach_controller.resources.network import policies
from cloudach_model_api.model import Model

from tests.charts.flows import MODELS, PLATFORM, ROWS, TEAM, closed_flows, open_flows, world
from tests.support.helm import NAMESPACE, Object, Objects, render
from tests.support.network_policies import Network, Outside, Pod
from tests.support.processes import ROOT
from tests.support.release import MODEL_SPEC

ALL_OF_IT: dict[str, Any] = {
    "firstKey": {"create": True},
    "models": [{"name": "m", "spec": MODEL_SPEC}],
    "watchNamespaces": [NAMESPACE, TEAM],
}
EVERYWHERE = {**ALL_OF_IT, "watchNamespaces": ["*"]}
LEFT_OUT = {**ALL_OF_IT, "watchNamespaces": [NAMESPACE]}
PLUGINS = {"addresses hold pods": True, "as Cilium": False}


@cache
def chart(kind: str) -> Objects:
    return render({"listed": ALL_OF_IT, "everywhere": EVERYWHERE, "left out": LEFT_OUT}[kind])


def of_models(objects: Objects, namespaces: tuple[str, ...] = (NAMESPACE, TEAM)) -> list[Object]:
    """What a controller with this release's configuration makes, for Models whose weights come from the Hub."""
    settings = controller_settings.parse(yaml.safe_dump(objects.config("controller")))
    spec = {"source": {"huggingFace": {"repo": "a/b"}}}
    made = []
    for namespace, name in MODELS:
        if namespace in namespaces:
            metadata = {"name": name, "namespace": namespace, "uid": "u"}
            made += policies(Model.from_object({"metadata": metadata, "spec": spec}), settings)
    return made


def default_deny() -> list[Object]:
    """As cautious clusters have it in each namespace."""
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return [{"metadata": {"name": "deny", "namespace": where}, "spec": spec} for where in (NAMESPACE, TEAM)]


def scenario(name: str) -> list[Object]:
    """The policies that there are then."""
    if name == "after an uninstall":
        return of_models(chart("listed"))
    if name == "a namespace is left out":
        # What was made there stays, because policies belong to their Models; the new controller knows of none there.
        kept = [one for one in of_models(chart("listed")) if one["metadata"]["namespace"] == TEAM]
        return [*chart("left out").all("NetworkPolicy"), *of_models(chart("left out"), (NAMESPACE,)), *kept]
    kind = "everywhere" if name == "everywhere" else "listed"
    made = [*chart(kind).all("NetworkPolicy"), *of_models(chart(kind))]
    return [*made, *default_deny()] if name == "default deny" else made


SCENARIOS = ("installed", "default deny", "everywhere", "a namespace is left out", "after an uninstall")


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_has_to_be_open_is(name: str, plugin: str) -> None:
    ends = world(chart("listed"))
    network = Network(scenario(name), pods_have_addresses=PLUGINS[plugin])
    flows = open_flows(ends)
    if name == "after an uninstall":
        flows = [flow for flow in flows if not set(flow[:2]) & set(PLATFORM)]
    assert len(flows) > 50
    assert [flow for flow in flows if not network.open(ends[flow[0]], ends[flow[1]], flow[2], flow[3])] == []


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_has_to_be_closed_is(name: str, plugin: str) -> None:
    ends = world(chart("listed"))
    network = Network(scenario(name), pods_have_addresses=PLUGINS[plugin])
    flows = closed_flows(ends)
    if name == "after an uninstall":  # these pods are gone, and so are their policies
        flows = [flow for flow in flows if not set(flow[:2]) & set(PLATFORM)]
    assert len(flows) > 500
    assert [flow for flow in flows if network.open(ends[flow[0]], ends[flow[1]], flow[2], flow[3])] == []


def test_without_the_policies_all_of_it_is_open() -> None:
    """Or the checks above would find nothing."""
    ends, network = world(chart("listed")), Network([])
    flows = closed_flows(ends)
    assert all(network.open(ends[source], ends[target], port, kind) for source, target, port, kind in flows)


@pytest.mark.parametrize("part", ["gateway", "controller", "valkey", "raystore"])
def test_each_opening_has_a_value(part: str) -> None:
    opening = {"ports": [{"port": 4317}], "to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}
    there, elsewhere = Outside("10.9.1.1"), Outside("10.8.1.1")
    objects = render({"networkPolicy": {"egress": {part.replace("raystore", "valkey"): [opening]}}})
    network = Network(objects.all("NetworkPolicy"))
    own = world(chart("listed"))[part]
    assert network.open(own, there, 4317)
    assert not network.open(own, elsewhere, 4317)
    assert not Network(chart("listed").all("NetworkPolicy")).open(own, there, 4317)


def test_egress_can_be_switched_off() -> None:
    network = Network(render({"networkPolicy": {"egress": {"enabled": False}}}).all("NetworkPolicy"))
    ends = world(chart("listed"))
    for part in ("gateway", "controller", "valkey", "raystore"):
        assert network.open(ends[part], ends["internet"], 80)
    assert not network.open(ends["anybody"], ends["valkey"], 6379)


UPSTREAMS = {
    "http://10.1.2.3:8000": [("10.1.2.3", 8000)],
    "http://[fd00::9]:8001": [("fd00::9", 8001)],
    "https://api.example.com": [("8.8.8.8", 443), ("10.1.2.3", 443)],
    "http://vllm.llm.svc:80": [("8.8.8.8", 80), ("10.1.2.3", 80)],
    "http://${HOST}:9000": [("8.8.8.8", 9000), ("10.1.2.3", 1)],
}


@pytest.mark.parametrize("url", UPSTREAMS)
def test_gateways_reach_the_upstreams_of_their_configuration(url: str) -> None:
    objects = render({"gateway": {"config": {"models": [{"id": "m", "upstreams": [url]}]}}})
    gateway = world(chart("listed"))["gateway"]
    for plugin in PLUGINS.values():
        network = Network(objects.all("NetworkPolicy"), pods_have_addresses=plugin)
        for address, port in UPSTREAMS[url]:
            assert network.open(gateway, Outside(address), port)
            assert not network.open(gateway, Outside("169.254.169.254"), port)
        # The pods of a Service may listen on another port than it does.
        assert network.open(gateway, Pod("llm", {"app": "vllm"}), 8080) is (".llm" in url or "$" in url)


def test_gateways_reach_a_redis_of_ones_own() -> None:
    own = {"valkey": {"enabled": False}, "redis": {"existingSecret": "mine"}}
    ends = world(chart("listed"))
    network = Network(render(own).all("NetworkPolicy"))
    for to in (Outside("10.5.5.5"), Outside("8.8.8.8"), Pod("redis", {"app": "redis"})):
        for port in (6379, 6380, 26379, 10000):  # a port that only the URL has, and no cluster to ask for it
            assert network.open(ends["gateway"], to, port)
            assert not network.open(ends["controller"], to, port)
    assert not network.open(ends["gateway"], Outside("169.254.169.254"), 6379)
    rule = {"ports": [{"port": 7000}], "to": [{"ipBlock": {"cidr": "10.5.5.5/32"}}]}
    narrow = Network(render({**own, "networkPolicy": {"egress": {"redis": [rule]}}}).all("NetworkPolicy"))
    assert narrow.open(ends["gateway"], Outside("10.5.5.5"), 7000)
    assert not narrow.open(ends["gateway"], Outside("10.5.5.5"), 6379)


def test_the_docs_have_this_table() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    begin = "| from | to | ports | |\n|---|---|---|---|\n"
    assert begin in text
    table = text.partition(begin)[2].partition("\n\n")[0]
    assert table.splitlines() == [row.line for row in ROWS]


def test_kuberays_namespace_is_named() -> None:
    ends = world(chart("listed"))
    elsewhere = render({**ALL_OF_IT, "networkPolicy": {"kuberayNamespace": "evil"}})
    network = Network(of_models(elsewhere))
    head = ends[f"{TEAM}/qwen-head"]
    assert network.open(ends["as-kuberay"], head, 8265)
    assert not network.open(ends["kuberay"], head, 8265)
