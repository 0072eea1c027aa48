"""Where requests for a Model go: to its ready pods, or to its Service. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from cloudach_model_api import Model

from ..served import Absence, Resource, ServedModel, Why
from .endpoints import Pods

Addresses = Literal["pods", "service"]


@dataclass(frozen=True, slots=True)
class Reach:
    """`connection_s` says for how long a connection to a Service takes new requests.

    A connection stays with the pod that it was made to. Where the Service's pods are not known, nothing tells when that
    pod has become the wrong one.
    """

    addresses: Addresses
    connection_s: float

    def of(self, entry: ServedModel, pods: Pods | None) -> ServedModel:
        """Returns the entry with the addresses that requests go to. pods: None if the Service's are unknown."""
        if pods is None or not entry.upstreams:
            return replace(entry, connection_s=self.connection_s)
        if not pods.addresses:
            missing = Absence(Why.NO_ENDPOINT, pods.empty_since, "no pod of it is ready")
            return replace(entry, upstreams=(), absence=_later(entry.absence, missing))
        absence = entry.absence
        if absence is not None and absence.why is Why.NO_ENDPOINT:
            absence = None  # the controller has not seen these pods yet
        (service,) = entry.upstreams
        parts = urlsplit(service)
        if self.addresses == "service" or parts.scheme != "http":  # a certificate is the Service's, not a pod's
            return replace(entry, absence=absence, connection_s=self.connection_s)
        upstreams = tuple(f"http://{address}{parts.path}" for address in pods.addresses)
        return replace(entry, upstreams=upstreams, absence=absence)


def _later(said: Absence | None, missing: Absence) -> Absence:
    """Returns why the Model is absent, in its own words if it has any.

    The pods know better since when: the Model counts from when it was last not ready, which includes all of its start.
    """
    if said is None:
        return missing
    if said.why is not Why.NO_ENDPOINT or said.since is None or missing.since is None:
        return said
    return replace(said, since=max(said.since, missing.since))


def service_of(model: Model) -> Resource | None:
    """The Service of the Model's own namespace that its endpoint names; None for an endpoint of another kind."""
    try:
        host = urlsplit(model.status.endpoint or "").hostname or ""
    except ValueError:
        return None
    labels = host.split(".")
    if len(labels) < 2 or labels[1] != model.metadata.namespace or labels[2:3] not in ([], ["svc"]):
        return None
    return Resource(labels[1], labels[0])
