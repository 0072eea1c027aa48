"""Reads from EndpointSlices (discovery.k8s.io/v1) which pods are behind a Service. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from ..served import Resource

_SERVICE_LABEL = "kubernetes.io/service-name"
_PORT_NAME = "serve"  # KubeRay's own name for it
_PORT = 8000
_LARGEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One entry of a slice. `pod`: what tells whether two entries mean the same pod. `address`: host and port."""

    pod: str
    address: str
    ready: bool
    ending: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """One EndpointSlice. `service`: the Service that it is a part of."""

    own: Resource
    service: Resource
    endpoints: tuple[Endpoint, ...]


def own_name(obj: dict[str, Any]) -> Resource:
    metadata = _mapping(obj.get("metadata"))
    return Resource(str(metadata.get("namespace", "")), str(metadata.get("name", "")))


def read(obj: dict[str, Any]) -> Slice | None:
    """None for a slice of no Service. Entries that make no sense are left out."""
    service = _mapping(_mapping(obj.get("metadata")).get("labels")).get(_SERVICE_LABEL)
    if not isinstance(service, str) or not service:
        return None
    own = own_name(obj)
    port = _port(obj)
    found: list[Endpoint] = []
    if port is not None:
        for entry in obj.get("endpoints") or ():
            if isinstance(entry, dict):
                found += _endpoints(entry, port)
    return Slice(own, Resource(own.namespace, service), tuple(found))


def ready_addresses(slices: Iterable[Slice]) -> tuple[str, ...]:
    """Where new requests may go: one address for each pod that is ready and does not end, in a steady order.

    While slices are rearranged a pod may stand in two of them. Who is ending in one of them takes no new request. In a
    cluster with two address families a pod has an address of each, and the IPv4 one is taken.
    """
    addresses: dict[str, list[str]] = {}
    ending: set[str] = set()
    for one in slices:
        for endpoint in one.endpoints:
            if endpoint.ending:
                ending.add(endpoint.pod)
            elif endpoint.ready:
                addresses.setdefault(endpoint.pod, []).append(endpoint.address)
    first = {min(found, key=_families) for pod, found in addresses.items() if pod not in ending}
    return tuple(sorted(first))


def _endpoints(entry: dict[str, Any], port: int) -> Iterator[Endpoint]:
    """One for each address; there should be exactly one."""
    conditions = _mapping(entry.get("conditions"))
    target = _mapping(entry.get("targetRef"))
    for text in entry.get("addresses") or ():
        try:
            address = ip_address(text) if isinstance(text, str) and "%" not in text else None
        except ValueError:  # a name, as in slices of the type FQDN
            continue
        if address is not None:
            host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
            yield Endpoint(
                pod=str(target.get("uid") or f"{host}:{port}"),
                address=f"{host}:{port}",
                ready=conditions.get("ready") is not False,  # nothing said means ready
                ending=conditions.get("terminating") is True,
            )


def _port(obj: dict[str, Any]) -> int | None:
    """The port named `serve`, or else the only one; 8000 where all are open. None: there is none for us."""
    ports = [port for port in obj.get("ports") or () if isinstance(port, dict)]
    named = [port for port in ports if port.get("name") == _PORT_NAME] or (ports if len(ports) == 1 else [])
    if not named:
        return None if ports or obj.get("ports") is not None else _PORT
    number = named[0].get("port")
    if number is None:
        return _PORT
    return number if isinstance(number, int) and 0 < number <= _LARGEST_PORT else None


def _families(address: str) -> tuple[bool, str]:
    return address.startswith("["), address


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
