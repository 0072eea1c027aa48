"""Asks policies who reaches whom, by the rules that Kubernetes' documentation gives for NetworkPolicies.

A connection is open when the source's egress and the target's ingress both allow it. A pod that no policy selects for a
direction allows everything in it. Policies only add to one another. Nothing closes a pod to itself.

Left out, because no policy of this project depends on it: pods on the network of their host, traffic from a pod's own
node (kubelets' probes always pass), protocols other than TCP and UDP, what happens to connections that are open when a
policy changes, and addresses of Services. Plugins see the pod behind a Service, so the flows are asked by pods. Plugins
differ in one thing: for Cilium no `ipBlock` holds the address of a pod. `pods_have_addresses` says which kind is asked.

There is no well-kept library for this in Python: network-config-analyzer was given up for np-guard's netpol-analyzer,
which is a program in Go, like Cyclonus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """`ports`: the numbers of its named ports."""

    namespace: str
    labels: Mapping[str, str]
    address: str = "10.244.1.7"
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outside:
    """Something that is no pod: a node, a service of a cloud, the internet."""

    address: str


End = Pod | Outside


@dataclass(frozen=True)
class Network:
    """`namespaces`: their labels, beside the one that Kubernetes gives each."""

    policies: Sequence[Policy]
    pods_have_addresses: bool = True
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def open(self, source: End, target: End, port: int, protocol: str = "TCP") -> bool:
        if source == target:
            return True
        return self._allows("Egress", source, target, target, port, protocol) and self._allows(
            "Ingress", target, source, target, port, protocol
        )

    def _allows(self, direction: str, own: End, other: End, target: End, port: int, protocol: str) -> bool:
        if isinstance(own, Outside):
            return True
        selecting = [one for one in self.policies if _selects(one, own, direction)]
        rules_in, peers_in = ("egress", "to") if direction == "Egress" else ("ingress", "from")
        return not selecting or any(
            self._fits(one, rule.get(peers_in), other) and _on_port(rule.get("ports"), target, port, protocol)
            for one in selecting
            for rule in one["spec"].get(rules_in) or ()
        )

    def _fits(self, policy: Policy, peers: Sequence[Mapping[str, Any]] | None, other: End) -> bool:
        """No peers are all peers."""
        return not peers or any(self._is(policy, peer, other) for peer in peers)

    def _is(self, policy: Policy, peer: Mapping[str, Any], other: End) -> bool:
        if "ipBlock" in peer:
            seen = isinstance(other, Outside) or self.pods_have_addresses
            return seen and _holds(peer["ipBlock"], other.address)
        if isinstance(other, Outside):
            return False
        if "namespaceSelector" in peer:
            given = self.namespaces.get(other.namespace, {})
            there = _matches(peer["namespaceSelector"], {**given, "kubernetes.io/metadata.name": other.namespace})
        else:
            there = other.namespace == policy["metadata"]["namespace"]
        return there and _matches(peer.get("podSelector") or {}, other.labels)


def _selects(policy: Policy, pod: Pod, direction: str) -> bool:
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    inside = policy["metadata"]["namespace"] == pod.namespace
    return inside and direction in types and _matches(spec.get("podSelector") or {}, pod.labels)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        _meets(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """As Kubernetes has it, NotIn is met also where the label is missing."""
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(expression["operator"])


def _holds(block: Mapping[str, Any], address: str) -> bool:
    closed: Iterable[str] = block.get("except") or ()
    return _within(block["cidr"], address) and not any(_within(one, address) for one in closed)


def _within(block: str, address: str) -> bool:
    network, one = ip_network(block), ip_address(address)
    return one.version == network.version and one in network


def _on_port(ports: Sequence[Mapping[str, Any]] | None, target: End, port: int, protocol: str) -> bool:
    """No ports are all ports. A name stands for the port that the target calls so."""
    if not ports:
        return True
    for one in ports:
        if one.get("protocol", "TCP") != protocol:
            continue
        wanted = one.get("port")
        if isinstance(wanted, str):
            wanted = target.ports.get(wanted, -1) if isinstance(target, Pod) else -1
        if wanted is None or wanted <= port <= one.get("endPort", wanted):
            return True
    return False
