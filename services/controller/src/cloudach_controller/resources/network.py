"""NetworkPolicies of each Model say what reaches its pods and what they reach. They go with the Model. Pure.

They select by the Model's own label, so one Model's engines are closed to another's. There are two policies, because
the head alone has a dashboard, which the controller and KubeRay ask. The head alone asks the API server (Ray's
autoscaler) and the store of Ray's state, which KubeRay's Job cleans up in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from cloudach_model_api.model import Model
from cloudach_model_api.names import LABEL_MANAGED_BY, LABEL_MODEL, MANAGER
from cloudach_model_api.source import AdapterSource, ObjectStore, Source
from cloudach_model_api.use import owner

from ..settings import Settings

Rule = dict[str, Any]

_NODE = "ray.io/node-type"
_DNS = {"ports": [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]}
"""DNS is open to anywhere, because a cache on the node has an address of its own. OpenShift's servers
listen on 5353."""
_NAT64 = IPv6Address("64:ff9b::")
_METADATA = ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "fe80::/10", "fd00:ec2::254/128")
"""Clouds hand out machines' credentials at these addresses. No setting or spec opens them."""


def names(model: Model) -> tuple[str, str]:
    """Returns the names of all policies that the Model may have. The part after the dot, which no Model's name has,
    keeps those of two Models apart.
    """
    return f"{model.metadata.name}.head", f"{model.metadata.name}.engines"


def policies(model: Model, settings: Settings) -> list[dict[str, Any]]:
    """Returns the policies to apply, in order; empty if none are wanted."""
    wanted = settings.network_policy
    if not wanted.enabled:
        return []
    head, engines = names(model)
    of_all: dict[str, Any] = {"ingress": _ingress(model, settings), "policyTypes": ["Ingress"]}
    of_heads: dict[str, Any] = {"ingress": _ingress_of_head(settings), "policyTypes": ["Ingress"]}
    if wanted.egress:
        of_all |= {"egress": _egress(model, settings), "policyTypes": ["Ingress", "Egress"]}
        of_heads |= {"egress": _egress_of_head(settings), "policyTypes": ["Ingress", "Egress"]}
    # The head's comes first. So after an upgrade its rules exist before the policy of all pods loses them.
    return [_policy(model, head, of_heads, nodes=("head", "redis-cleanup")), _policy(model, engines, of_all)]


def _policy(model: Model, name: str, spec: dict[str, Any], *, nodes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Makes a NetworkPolicy with this spec for the Model's pods, or only for those of the types in `nodes`.

    The types are KubeRay's, such as `head`.
    """
    own = {LABEL_MODEL: model.metadata.name}
    # The API server drops an empty list, so a policy with one would be applied again and again.
    spec = {field: value for field, value in spec.items() if value != []}
    spec["podSelector"] = {"matchLabels": own}
    if nodes:
        spec["podSelector"]["matchExpressions"] = [{"key": _NODE, "operator": "In", "values": list(nodes)}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": model.metadata.namespace,
            "labels": {**own, LABEL_MANAGED_BY: MANAGER},
            "ownerReferences": [owner(model)],
        },
        "spec": spec,
    }


def _own_pods(model: Model) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {LABEL_MODEL: model.metadata.name}}}


def _ingress(model: Model, settings: Settings) -> list[Rule]:
    wanted = settings.network_policy
    named = _named((wanted.gateways, (8000,)), (wanted.metrics, (8080, 44217, 44227)))
    return [{"from": [_own_pods(model)]}, *named, *wanted.extra_ingress]


def _ingress_of_head(settings: Settings) -> list[Rule]:
    """Lets the controller and KubeRay ask the dashboard, and KubeRay the Serve proxy's state on 8000.

    Only kubelets ask the agents' port 52365.
    """
    wanted = settings.network_policy
    return _named((wanted.controllers, (8265,)), (wanted.kuberay, (8265, 8000)))


def _named(*who: tuple[Sequence[dict[str, Any]], tuple[int, ...]]) -> list[Rule]:
    """Makes no rule for an empty list, because a rule without `from` lets everybody in."""
    return [{"ports": _tcp(*ports), "from": list(peers)} for peers, ports in who if peers]


def _egress(model: Model, settings: Settings) -> list[Rule]:
    rules: list[Rule] = [_DNS, {"to": [_own_pods(model)]}]
    spec = model.spec
    sources: list[Source | AdapterSource] = [spec.source, *(adapter.source for adapter in spec.adapters)]
    stores = [source.object_store for source in sources if source.object_store is not None]
    if any(source.hugging_face is not None for source in sources) or any(store.endpoint is None for store in stores):
        rules.append({"ports": _tcp(443), "to": _anywhere_but(settings.network_policy.closed)})
    if spec.allowed_media_domains:
        named = {int(domain.partition(":")[2]) for domain in spec.allowed_media_domains if ":" in domain}
        rules.append({"ports": _tcp(*sorted({80, 443} | named)), "to": _anywhere_but(settings.network_policy.closed)})
    rules += _unique(_store(store) for store in stores if store.endpoint is not None)
    return [*rules, *settings.network_policy.extra_egress]


def _egress_of_head(settings: Settings) -> list[Rule]:
    rules = list(settings.network_policy.api_server)
    if settings.ray.gcs_redis_address:
        port = settings.ray.gcs_redis_address.rpartition(":")[2]
        rules.append({"ports": _tcp(int(port) if port.isdigit() else 6379), "to": _anywhere()})
    if settings.gcs_store.address:
        port = settings.gcs_store.address.rpartition(":")[2]
        rules.append({"ports": _tcp(int(port)), "to": list(settings.gcs_store.pods) or _anywhere()})
    return rules


def _store(store: ObjectStore) -> Rule:
    """Opens the store that the operator has named, even in a private range. A host name may lead anywhere."""
    url = urlsplit(store.endpoint or "")
    host = url.hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        to = _anywhere()
    else:
        to = [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}]
    return {"ports": _tcp(url.port or (80 if url.scheme == "http" else 443)), "to": to}


def _anywhere() -> list[dict[str, Any]]:
    """Allows every address. Pods are named apart, because for Cilium no range holds those of the cluster."""
    return [*_anywhere_but(_METADATA), {"namespaceSelector": {}}]


def _anywhere_but(closed: tuple[str, ...]) -> list[dict[str, Any]]:
    old = [block for block in closed if ":" not in block]
    new = [*(block for block in closed if ":" in block), *map(_through_nat64, old)]
    return [{"ipBlock": {"cidr": "0.0.0.0/0", "except": old}}, {"ipBlock": {"cidr": "::/0", "except": new}}]


def _through_nat64(block: str) -> str:
    """Returns where a cluster without IPv4 addresses finds a range of IPv4. Public addresses stay open that way."""
    network = IPv4Network(block)
    return str(IPv6Network((int(_NAT64) | int(network.network_address), 96 + network.prefixlen)))


def _tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def _unique(rules: Any) -> list[Rule]:
    found: list[Rule] = []
    for rule in rules:
        if rule not in found:
            found.append(rule)
    return found
