"""The evaluator against the cases of Kubernetes' own documentation of NetworkPolicies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.network_policies import End, Network, Outside, Pod

DB = Pod("default", {"role": "db"}, "10.1.0.5", {"redis": 6379})
FRONTEND = Pod("default", {"role": "frontend"}, "10.1.0.6")
ELSEWHERE = Pod("myproject", {"role": "other"}, "10.1.0.7")
STRANGER = Pod("evil", {"role": "frontend"}, "10.1.0.8")


def policy(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": "p"}, "spec": {"podSelector": {}, **spec}}


DOCUMENTED = policy(
    podSelector={"matchLabels": {"role": "db"}},
    policyTypes=["Ingress", "Egress"],
    ingress=[
        {
            "from": [
                {"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"]}},
                {"namespaceSelector": {"matchLabels": {"project": "myproject"}}},
                {"podSelector": {"matchLabels": {"role": "frontend"}}},
            ],
            "ports": [{"protocol": "TCP", "port": "redis"}],
        }
    ],
    egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"protocol": "TCP", "port": 5978}]}],
)
NETWORK = Network([DOCUMENTED], namespaces={"myproject": {"project": "myproject"}})


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        (FRONTEND, DB, 6379, True),
        (ELSEWHERE, DB, 6379, True),
        (STRANGER, DB, 6379, False),  # a podSelector alone is of the policy's own namespace
        (Outside("172.17.2.1"), DB, 6379, True),
        (Outside("172.17.1.1"), DB, 6379, False),
        (FRONTEND, DB, 6380, False),
        (DB, Outside("10.0.0.9"), 5978, True),
        (DB, Outside("10.0.0.9"), 5979, False),
        (DB, Outside("10.0.1.9"), 5978, False),
        (DB, DB, 1, True),
        (FRONTEND, STRANGER, 1, True),  # nothing selects them
    ],
)
def test_the_documented_example(source: End, target: End, port: int, expected: bool) -> None:
    assert NETWORK.open(source, target, port) is expected


def test_isolation_is_by_direction_and_openings_add_up() -> None:
    deny = policy(policyTypes=["Ingress", "Egress"])
    assert not Network([deny]).open(FRONTEND, DB, 1)
    assert Network([policy(policyTypes=["Egress"])]).open(STRANGER, DB, 1)
    all_in, all_out = policy(policyTypes=["Ingress"], ingress=[{}]), policy(policyTypes=["Egress"], egress=[{}])
    assert not Network([deny, all_in]).open(FRONTEND, DB, 1)
    assert Network([deny, all_in, all_out]).open(FRONTEND, DB, 1)
    assert not Network([policy(egress=[{"ports": [{"port": 1}]}])]).open(FRONTEND, Outside("1.1.1.1"), 2), "by default"


def test_both_selectors_of_one_peer_have_to_match() -> None:
    both = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "evil"}}, "podSelector": {}}
    others = {"matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["frontend"]}]}
    narrow = both | {"podSelector": others}
    for peer, expected in ((both, True), (narrow, False)):
        network = Network([policy(policyTypes=["Ingress"], ingress=[{"from": [peer]}])])
        assert network.open(STRANGER, DB, 1) is expected
        assert not network.open(FRONTEND, DB, 1)


def test_ranges_of_ports_protocols_and_where_pods_have_no_addresses() -> None:
    egress = [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 10, "endPort": 20, "protocol": "UDP"}]}]
    out = policy(policyTypes=["Egress"], egress=egress)
    assert Network([out]).open(FRONTEND, STRANGER, 15, "UDP")
    assert not Network([out]).open(FRONTEND, STRANGER, 15, "TCP")
    assert not Network([out]).open(FRONTEND, STRANGER, 21, "UDP")
    assert not Network([out], pods_have_addresses=False).open(FRONTEND, STRANGER, 15, "UDP")
    assert Network([out], pods_have_addresses=False).open(FRONTEND, Outside("1.1.1.1"), 15, "UDP")
