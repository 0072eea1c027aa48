"""Makes catalog entries from Model resources. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from cloudach_model_api import Claim, ConditionType, InvalidModel, Model, Reason, State, allocate
from cloudach_service.settings import base_url

from ..served import Absence, Resource, Rules, ServedModel, Why

# What a gateway has to know of a spec. The rest may be newer than this gateway, or wrong: then the controller says so,
# and what ran before goes on.
_READ = (
    *("id", "aliases", "source", "image", "maxModelLen", "replicas", "autoscaling", "lora"),
    *("cacheSalt", "unknownFields", "allowedFields", "allowedMediaDomains"),
)
_STATUS = (
    *("id", "names", "state", "replicas", "readyReplicas", "desiredReplicas", "endpoint", "upstreamModel", "adapters"),
    *("engineKey", "wakeRequestedAt", "conditions"),
)
_METADATA = ("name", "namespace", "creationTimestamp", "deletionTimestamp", "annotations")

_NO_KEYS: Mapping[Resource, str | None] = MappingProxyType({})


_base_url = lru_cache(maxsize=4096)(base_url)  # it is looked at for each Model whenever one of them changes


@dataclass(frozen=True, slots=True)
class Refused:
    """A Model, or one name of it, that is not served, and why."""

    resource: Resource
    problem: str


def trimmed(obj: dict[str, Any]) -> dict[str, Any]:
    """The part of a Model that is read here."""

    def only(part: str, fields: Collection[str]) -> dict[str, Any]:
        found = obj.get(part)
        return {name: found[name] for name in fields if name in found} if isinstance(found, dict) else {}

    return {
        **{name: obj[name] for name in ("apiVersion", "kind") if name in obj},
        "metadata": only("metadata", _METADATA),
        "spec": only("spec", _READ),
        "status": only("status", _STATUS),
    }


def read(obj: dict[str, Any]) -> Model | Refused:
    try:
        return Model.from_object(trimmed(obj))
    except InvalidModel as error:
        metadata = obj.get("metadata") or {}
        return Refused(Resource(str(metadata.get("namespace", "")), str(metadata.get("name", ""))), str(error))


def resource(model: Model) -> Resource:
    return Resource(model.metadata.namespace, model.metadata.name)


def served(
    models: Iterable[Model], reserved: Collection[str], keys: Mapping[Resource, str | None] = _NO_KEYS
) -> tuple[list[ServedModel], list[Refused]]:
    """The catalog's entries. `keys`: what engines ask for.

    Whose a name is, cloudach_model_api.claims says, as for the controller; `reserved` ones are taken. A Model that is
    being deleted is gone for new requests, so that its streams run out. One without its own id is not served at all; an
    alias is done without. Each LoRA adapter is a model of its own, left out when its id is not free.
    """
    asking = {claim.key: (claim, model) for model in models if (claim := Claim.of(model)) is not None}
    shares = allocate((claim for claim, _ in asking.values()), reserved)
    entries: list[ServedModel] = []
    refused: list[Refused] = []
    for claim, model in sorted(asking.values(), key=lambda one: one[0].age):
        grant = shares[claim.key]
        for each in grant.refused:
            owner = f"the Model {'/'.join(each.owner)}" if each.owner else "the gateway's configuration file"
            refused.append(Refused(resource(model), f"the name {each.name!r} belongs to {owner}"))
        if not grant.names:
            continue
        base = _entry(model, grant.names, keys)
        entries.append(base)
        entries += [_adapter(model, base, adapter.name, adapter.names) for adapter in grant.adapters]
    return entries, refused


def leaving(models: Iterable[Model], keys: Mapping[Resource, str | None] = _NO_KEYS) -> list[ServedModel]:
    """Models that are being deleted, and their adapters: only for the requests that run already."""
    entries: list[ServedModel] = []
    for model in models:
        if model.metadata.deletion_timestamp is not None:
            base = _entry(model, model.names, keys)
            entries += [base, *(_adapter(model, base, one.name, one.names) for one in model.adapters)]
    return [replace(entry, names=()) for entry in entries]


def absence(model: Model) -> Absence | None:
    """None: it can be asked. What is on its way to sleep is asleep already: the next request keeps it awake."""
    status = model.status
    ready = status.condition(ConditionType.READY)
    said = ready.reason if ready is not None and ready.status == "False" else None
    if status.endpoint and status.ready_replicas and said is None:
        try:
            _base_url(status.endpoint)
        except ValueError as error:
            return Absence(Why.STUCK, ready.last_transition_time if ready is not None else None, f"endpoint: {error}")
        return None
    degraded = status.condition(ConditionType.DEGRADED)
    blocked = degraded is not None and degraded.status == "True"
    detail = degraded.message if degraded is not None and blocked else ""
    since = _absent_since(model)
    if status.state is State.FAILED:
        return Absence(Why.STUCK, since, detail)
    if status.state in (State.SLEEPING, State.OFF) or said in (Reason.SLEEPING, Reason.SCALED_TO_ZERO):
        return Absence(Why.ASLEEP if sleeps(model) else Why.OFF, since, detail)
    if said == Reason.NOT_REACHABLE:
        return Absence(Why.NO_ENDPOINT, since, detail)
    return Absence(Why.STARTING, since, detail, blocked)


def sleeps(model: Model) -> bool:
    """Returns True if the Model is put to sleep when nobody asks for it."""
    return model.spec.autoscaling is not None and model.spec.autoscaling.min_replicas == 0


def slept_through(model: Model) -> float | None:
    """Seconds from the last wish to wake it until it was ready, if it tells."""
    ready = model.status.condition(ConditionType.READY)
    asked = model.wake_requested_at
    if ready is None or ready.status != "True" or asked is None or ready.last_transition_time < asked:
        return None
    return (ready.last_transition_time - asked).total_seconds()


def _absent_since(model: Model) -> datetime | None:
    """Since when it starts: not since it fell asleep."""
    progressing = model.status.condition(ConditionType.PROGRESSING)
    if progressing is not None and progressing.status == "True" and progressing.reason == Reason.WAKING:
        return model.wake_requested_at or progressing.last_transition_time
    ready = model.status.condition(ConditionType.READY)
    return ready.last_transition_time if ready is not None else model.metadata.creation_timestamp


def _adapter(model: Model, base: ServedModel, name: str, names: tuple[str, ...]) -> ServedModel:
    return replace(
        base,
        id=names[0],
        names=names,
        upstream_model=f"{base.upstream_model}:{name}",
        absence=_either(base.absence, _not_loaded(model, name)),
        parent=model.id,
    )


def _not_loaded(model: Model, adapter: str) -> Absence | None:
    """Returns why an adapter cannot be asked while its model can. None if every replica has loaded it."""
    if adapter in (model.status.adapters or ()):
        return None
    degraded, progressing = (
        model.status.condition(kind) for kind in (ConditionType.DEGRADED, ConditionType.PROGRESSING)
    )
    if degraded is not None and degraded.reason == Reason.ADAPTER_NOT_LOADED:
        return Absence(Why.STUCK, degraded.last_transition_time, degraded.message)
    if progressing is not None and progressing.reason == Reason.REPLACEMENT_PENDING:
        return Absence(Why.STUCK, progressing.last_transition_time, progressing.message)
    moves = progressing is not None and progressing.status == "True"
    return Absence(Why.STARTING, progressing.last_transition_time if progressing is not None and moves else None)


def _either(one: Absence | None, other: Absence | None) -> Absence | None:
    """The first of them. A missing endpoint comes last, because the gateway sees by itself whether there is one."""
    if one is None or (one.why is Why.NO_ENDPOINT and other is not None):
        return other
    return one


def _upstreams(model: Model) -> tuple[str, ...]:
    """Empty while there is no endpoint, or one that no request could be sent to."""
    try:
        return (_base_url(model.status.endpoint),) if model.status.endpoint else ()
    except ValueError:
        return ()


def _locked(model: Model, keys: Mapping[Resource, str | None]) -> Absence | None:
    """Its engines would refuse each request: for as long as their key cannot be read, it cannot be asked."""
    if model.status.engine_key is None or resource(model) in keys:
        return None
    return Absence(Why.STARTING, detail="the key of its engines has not been read yet")


def _entry(model: Model, names: tuple[str, ...], keys: Mapping[Resource, str | None]) -> ServedModel:
    made = model.metadata.creation_timestamp
    return ServedModel(
        id=names[0],
        names=names,
        upstreams=_upstreams(model),
        upstream_model=model.status.upstream_model or model.upstream_model,
        api_key=keys.get(resource(model)),
        dialect="vllm",
        max_model_len=model.spec.max_model_len,
        created=int(made.timestamp()) if made is not None else 0,
        absence=_either(absence(model), _locked(model, keys)),
        sleeps=sleeps(model),
        resource=resource(model),
        rules=Rules(
            cache_salt=model.spec.cache_salt,
            pass_unknown=model.spec.unknown_fields == "pass",
            allowed_fields=frozenset(model.spec.allowed_fields),
            media_domains=frozenset(model.spec.allowed_media_domains),
        ),
        shared=str(resource(model)),  # each pod's proxy passes requests on to any replica of its cluster
    )
