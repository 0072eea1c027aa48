"""Which pods EndpointSlices name as ready: the rules of discovery.k8s.io/v1, and what is no slice at all."""

from __future__ import annotations

from typing import Any

import pytest
from cloudach_gateway.catalog import Resource
from cloudach_gateway.catalog.cluster.slices import Slice, read, ready_addresses

SERVICE = "llama-serve-svc"


def addresses(*objects: dict[str, Any]) -> tuple[str, ...]:
    slices = [read(obj) for obj in objects]
    return ready_addresses(one for one in slices if one is not None)


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ({}, True),
        ({"ready": None, "serving": None, "terminating": None}, True),
        ({"ready": True, "terminating": None}, True),
        ({"ready": False, "serving": False, "terminating": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": True, "serving": True, "terminating": True}, False),  # publishNotReadyAddresses
    ],
)
def test_the_conditions_of_an_endpoint(make_slice: Any, conditions: dict[str, Any], ready: bool) -> None:
    assert addresses(make_slice(SERVICE, "10.0.0.1", **conditions)) == (("10.0.0.1:8000",) if ready else ())


def test_an_endpoint_that_says_nothing_is_ready(make_slice: Any) -> None:
    obj = make_slice(SERVICE, "10.0.0.1")
    for conditions in (None, {}):
        obj["endpoints"][0]["conditions"] = conditions
        assert addresses(obj) == ("10.0.0.1:8000",)


def test_several_slices_are_one_service(make_slice: Any) -> None:
    one, two = make_slice(SERVICE, "10.0.0.2", "10.0.0.1"), make_slice(SERVICE, "10.0.0.3", "10.0.0.2", name="second")
    assert addresses(one, two) == ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")


def test_a_pod_that_moves_between_slices(make_slice: Any) -> None:
    """It may stand in both for a moment; the newer one may be either of them."""
    ready, not_yet = make_slice(SERVICE, "10.0.0.1"), make_slice(SERVICE, "10.0.0.1", name="old", ready=False)
    assert addresses(ready, not_yet) == addresses(not_yet, ready) == ("10.0.0.1:8000",)
    ending = make_slice(SERVICE, "10.0.0.1", name="old", ready=False, terminating=True)
    assert addresses(ready, ending) == addresses(ending, ready) == ()


def test_two_address_families_are_one_pod(make_slice: Any) -> None:
    four, six = make_slice(SERVICE, "10.0.0.1"), make_slice(SERVICE, "fd00::1", name="six")
    six["endpoints"][0]["targetRef"] = four["endpoints"][0]["targetRef"]
    assert addresses(six, four) == ("10.0.0.1:8000",)
    assert addresses(six) == ("[fd00::1]:8000",)


def test_the_port_of_the_slice(make_slice: Any) -> None:
    named = [{"name": "metrics", "port": 1}, {"name": "serve", "port": 9000}]
    assert addresses(make_slice(SERVICE, "10.0.0.1", ports=named)) == ("10.0.0.1:9000",)
    assert addresses(make_slice(SERVICE, "10.0.0.1", ports=[{"name": "", "port": 7000}])) == ("10.0.0.1:7000",)
    assert addresses(make_slice(SERVICE, "10.0.0.1", ports=named[:1] * 2)) == ()
    assert addresses(make_slice(SERVICE, "10.0.0.1", ports=[])) == (), "a Service without ports has none that is open"
    for everything in (None, [{"name": "serve"}]):
        obj = make_slice(SERVICE, "10.0.0.1")
        obj["ports"] = everything
        assert addresses(obj) == ("10.0.0.1:8000",)


@pytest.mark.parametrize("port", [0, -1, 65_536, "8000", 80.5])
def test_a_port_that_is_none(make_slice: Any, port: object) -> None:
    assert addresses(make_slice(SERVICE, "10.0.0.1", ports=[{"name": "serve", "port": port}])) == ()


def test_addresses_that_are_none(make_slice: Any) -> None:
    """No name is looked up, and nothing that stands there gets into a URL unread."""
    bad = ["pod.example.com", "10.0.0.300", "10.0.0.1@evil", "fe80::1%eth0", "", "10.0.0.1:1/x?"]
    obj = make_slice(SERVICE, *bad, "10.0.0.9")
    obj["endpoints"] += [None, 7, {"addresses": None}, {"addresses": [None, 5]}, {"conditions": []}]
    assert addresses(obj) == ("10.0.0.9:8000",)


def test_whose_slice_it_is(make_slice: Any) -> None:
    found = read(make_slice(SERVICE, namespace="a"))
    assert found == Slice(Resource("a", f"{SERVICE}-abcde"), Resource("a", SERVICE), ())
    for labels in (None, {}, {"kubernetes.io/service-name": ""}, {"kubernetes.io/service-name": 7}, []):
        obj = make_slice(SERVICE)
        obj["metadata"]["labels"] = labels
        assert read(obj) is None
