"""Which Models become which entries of the catalog."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cloudach_gateway.catalog import Resource, ServedModel, Why
from cloudach_gateway.catalog.cluster.entries import Refused, read, served
from cloudach_gateway.catalog.served import Rules
from cloudach_model_api import Model

SLEEPS = {"autoscaling": {"minReplicas": 0, "maxReplicas": 2}}


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    since = "2026-03-01T00:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def models(*objects: dict[str, Any]) -> list[Model]:
    found = [read(obj) for obj in objects]
    assert all(isinstance(one, Model) for one in found), found
    return found  # type: ignore[return-value]


def only(obj: dict[str, Any]) -> ServedModel:
    (entry,), refused = served(models(obj), ())
    assert refused == []
    return entry


def test_a_ready_model(make_model: Any) -> None:
    entry = only(make_model("llama", aliases=["small", "big"], maxModelLen=4096, endpoint="http://llama:8000/v1/"))
    assert entry == ServedModel(
        id="llama",
        names=("llama", "small", "big"),
        upstreams=("http://llama:8000",),
        upstream_model="llama",
        api_key=None,
        dialect="vllm",
        max_model_len=4096,
        created=int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()),
        resource=Resource("serving", "llama"),
        shared="serving/llama",
    )


@pytest.mark.parametrize("endpoint", ["http://llama:PORT", "llama:8000", "http://llama/a b", "http://llama/\r\nx: y"])
def test_an_endpoint_that_no_request_could_be_sent_to(make_model: Any, endpoint: str) -> None:
    entry = only(make_model("llama", endpoint=endpoint))
    assert entry.upstreams == ()
    assert entry.absence is not None
    assert entry.absence.why is Why.STUCK
    assert "endpoint" in entry.absence.detail


def test_what_callers_may_ask_for_holds_for_adapters_too(make_model: Any) -> None:
    spec = {
        "cacheSalt": "key",
        "unknownFields": "refuse",
        "allowedFields": ["priority"],
        "allowedMediaDomains": ["images.example.com"],
        "lora": {"adapters": [{"name": "sql", "source": {"simulator": {}}}]},
    }
    entries, _ = served(models(make_model("llama", **spec)), ())
    rules = Rules("key", False, frozenset({"priority"}), frozenset({"images.example.com"}))
    assert [entry.rules for entry in entries] == [rules, rules]


def test_an_id_is_not_what_the_engine_answers_to(make_model: Any) -> None:
    entry = only(make_model("llama", id="meta/Llama-3"))
    assert (entry.id, entry.upstream_model) == ("meta/Llama-3", "llama")


def with_adapters(make_model: Any, *adapters: dict[str, Any], loaded: tuple[str, ...] = (), **fields: Any) -> Any:
    lora = {"adapters": [{"source": {"simulator": {}}, **adapter} for adapter in adapters]}
    obj = make_model("llama", lora=lora, **fields)
    obj["status"]["adapters"] = list(loaded)
    return obj


def test_adapters_are_models_of_their_own(make_model: Any) -> None:
    two = ({"name": "sql"}, {"name": "b", "id": "Own"})
    obj = with_adapters(make_model, *two, loaded=("sql", "b"), aliases=["l"], maxModelLen=4096)
    base, sql, own = served(models(obj), ())[0]
    assert (base.names, base.parent) == (("llama", "l"), None)
    assert (sql.id, sql.names, sql.upstream_model) == ("llama:sql", ("llama:sql", "l:sql"), "llama:sql")
    assert (own.id, own.names, own.upstream_model) == ("Own", ("Own", "llama:b", "l:b"), "llama:b")
    for adapter in (sql, own):
        assert (adapter.parent, adapter.absence, adapter.max_model_len) == ("llama", None, 4096)
        assert (adapter.upstreams, adapter.resource) == (base.upstreams, base.resource)


def test_an_adapter_that_not_all_replicas_have(make_model: Any) -> None:
    """The model goes on; a request for the adapter might come to a replica that knows nothing of it."""
    moving = [condition("Progressing", "True", "Deploying")]
    obj = with_adapters(make_model, {"name": "old"}, {"name": "new"}, loaded=("old",), conditions=moving)
    base, old, new = served(models(obj), ())[0]
    assert (base.absence, old.absence) == (None, None)
    assert new.absence is not None
    assert (new.absence.why, new.absence.since) == (Why.STARTING, datetime(2026, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "said",
    [
        condition("Degraded", "True", "AdapterNotLoaded", "LoRA adapter 'sql': no such folder"),
        condition("Progressing", "False", "ReplacementPending", "annotate it"),
    ],
)
def test_an_adapter_that_an_operator_has_to_look_at(make_model: Any, said: dict[str, Any]) -> None:
    base, adapter = served(models(with_adapters(make_model, {"name": "sql"}, conditions=[said])), ())[0]
    assert base.absence is None
    assert adapter.absence is not None
    assert (adapter.absence.why, adapter.absence.detail) == (Why.STUCK, said["message"])


def test_an_adapter_sleeps_with_its_model(make_model: Any) -> None:
    obj = with_adapters(make_model, {"name": "sql"}, loaded=("sql",), state="Sleeping", ready=0, **SLEEPS)
    base, adapter = served(models(obj), ())[0]
    assert adapter.sleeps
    assert adapter.absence == base.absence
    assert base.absence is not None
    assert base.absence.why is Why.ASLEEP


def test_an_adapters_names_may_be_taken(make_model: Any) -> None:
    """One whose id is another's is not served; the model is, and so are its other adapters."""
    first = make_model("sql", aliases=["l"])
    young = with_adapters(
        make_model, {"name": "a", "id": "sql"}, {"name": "b"}, aliases=["l"], created="2026-01-02T00:00:00Z"
    )
    entries, refused = served(models(young, first), ())
    assert [entry.names for entry in entries] == [("sql", "l"), ("llama",), ("llama:b",)]
    assert [one.problem for one in refused] == [
        "the name 'l' belongs to the Model serving/sql",
        "the name 'sql' belongs to the Model serving/sql",
    ]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, None),
        ({"state": "Degraded"}, None),  # fewer replicas than there should be, but some
        ({"state": "Scaling", "ready": 2}, None),
        ({"state": None, "ready": 0, "endpoint": None}, Why.STARTING),  # no controller has seen it
        ({"state": "Pending", "ready": 0}, Why.STARTING),
        ({"state": "Deploying", "ready": 1, "endpoint": None}, Why.STARTING),
        ({"state": "Failed", "ready": 0}, Why.STUCK),
        ({"state": "Sleeping", "ready": 0}, Why.OFF),  # by a controller of the release before
        ({"state": "Off", "ready": 0}, Why.OFF),
        ({"state": "OfALaterRelease", "ready": 0}, Why.STARTING),
        ({"state": "Sleeping", "ready": 0, **SLEEPS}, Why.ASLEEP),
        ({"state": "Deploying", "ready": 0, **SLEEPS}, Why.STARTING),
    ],
)
def test_when_a_model_can_be_asked(make_model: Any, fields: dict[str, Any], why: Why | None) -> None:
    entry = only(make_model("llama", **fields))
    assert (entry.absence and entry.absence.why) == why
    assert entry.sleeps == ("autoscaling" in fields)


@pytest.mark.parametrize(("fields", "reason", "why"), [(SLEEPS, "Sleeping", Why.ASLEEP), ({}, "ScaledToZero", Why.OFF)])
def test_on_its_way_to_sleep(make_model: Any, fields: dict[str, Any], reason: str, why: Why) -> None:
    """Its last replica still runs out; a request sent there might find nobody."""
    going = make_model("llama", state="Scaling", conditions=[condition("Ready", "False", reason)], **fields)
    absence = only(going).absence
    assert absence is not None
    assert absence.why is why


def test_the_log_gets_the_operators_words(make_model: Any) -> None:
    bad = condition("Degraded", "True", "OutOfMemory", "lower maxModelLen")
    entry = only(make_model("llama", state="Failed", ready=0, conditions=[bad]))
    assert entry.absence is not None
    assert entry.absence.detail == "lower maxModelLen"


def test_the_older_model_keeps_a_name(make_model: Any) -> None:
    young = make_model("young", aliases=["chat", "y"], created="2026-01-03T00:00:00Z")
    old = make_model("old", aliases=["chat"], created="2026-01-02T00:00:00Z")
    entries, refused = served(models(young, old), ())
    assert [(e.id, e.names) for e in entries] == [("old", ("old", "chat")), ("young", ("young", "y"))]
    assert refused == [Refused(Resource("serving", "young"), "the name 'chat' belongs to the Model serving/old")]


def test_who_holds_a_name_keeps_it_also_against_an_older_model(make_model: Any) -> None:
    """The older one asks for it by an edit, of which the controller has not told yet."""
    young = make_model("young", aliases=["chat"], created="2026-01-03T00:00:00Z", names=["young", "chat"])
    old = make_model("old", aliases=["chat"], created="2026-01-02T00:00:00Z", names=["old"])
    entries, refused = served(models(young, old), ())
    assert {e.id: e.names for e in entries} == {"old": ("old",), "young": ("young", "chat")}
    assert refused == [Refused(Resource("serving", "old"), "the name 'chat' belongs to the Model serving/young")]


def test_a_model_without_its_own_id_is_not_served(make_model: Any) -> None:
    """Over all namespaces; else its other names would be billed as the other one's."""
    first = make_model("llama", created="2026-01-01T00:00:00Z")
    second = make_model("llama", namespace="other", aliases=["mine"], created="2026-01-02T00:00:00Z")
    entries, refused = served(models(second, first), ())
    assert [e.resource for e in entries] == [Resource("serving", "llama")]
    assert [r.resource for r in refused] == [Resource("other", "llama")]


def test_the_file_wins(make_model: Any) -> None:
    entries, refused = served(models(make_model("llama"), make_model("b", aliases=["small"])), {"llama", "small"})
    assert [e.names for e in entries] == [("b",)]
    assert all("configuration file" in r.problem for r in refused)
    assert len(refused) == 2


def test_a_deleted_models_names_are_free(make_model: Any) -> None:
    going = make_model("old", aliases=["chat"], deleting=True)
    entries, refused = served(models(going, make_model("new", aliases=["chat"], created="2026-01-02T00:00:00Z")), ())
    assert [e.names for e in entries] == [("new", "chat")]
    assert refused == []


def test_what_a_gateway_need_not_know_does_not_matter(make_model: Any) -> None:
    """A newer CRD's fields, and mistakes that are the controller's to tell of: what ran before goes on."""
    entry = only(make_model("llama", fancyNewField={"a": 1}, engine={"args": {"model": "x"}}, routing="telepathic"))
    assert entry.upstreams == ("http://engine:8000",)


def test_a_mistake_that_matters_is_named(make_model: Any) -> None:
    refused = read(make_model("llama", aliases=["llama"]))
    assert isinstance(refused, Refused)
    assert refused.resource == Resource("serving", "llama")
    assert "spec.aliases" in refused.problem
