"""Where requests for a Model go as its EndpointSlices change, over real HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cloudach_gateway.catalog import ServedModel, Why
from cloudach_kube.access import Access

from tests.support.waiting import until_async

from .following import Following, following

SERVICE = "http://a-serve-svc.serving.svc:8000"
SLICES = "a-serve-svc"


@pytest.fixture
def model(make_model: Any) -> Any:
    """A Model `a` as the controller tells of it, with KubeRay's Service for its endpoint."""

    def make(namespace: str = "serving", **fields: Any) -> Any:
        return make_model("a", namespace=namespace, endpoint=f"http://a-serve-svc.{namespace}.svc:8000", **fields)

    return make


def upstreams(it: Following, name: str = "a") -> tuple[str, ...]:
    return it.entry(name).upstreams


def why(it: Following, name: str = "a") -> Why | None:
    absence = it.entry(name).absence
    return None if absence is None else absence.why


async def test_requests_go_to_the_pods_that_are_ready(
    api: Any, access: Access, model: Any, make_model: Any, make_slice: Any
) -> None:
    lora = {"adapters": [{"name": "sql", "source": {"simulator": {}}}]}
    obj = model(lora=lora)
    obj["status"]["adapters"] = ["sql"]
    await api.put(obj)
    await api.put(make_model("elsewhere", endpoint="http://engine.example.com:9000/v1"))
    await api.put(make_slice(SLICES, "10.0.0.1", "10.0.0.2"))
    async with following(access) as it:
        await it.cluster.known()
        assert upstreams(it) == ("http://10.0.0.1:8000", "http://10.0.0.2:8000")
        assert upstreams(it, "a:sql") == upstreams(it)
        assert it.entry("a").connection_s is None
        assert upstreams(it, "elsewhere") == ("http://engine.example.com:9000",), "no Service of its namespace"
        await until_async(lambda: it.news.endpoints)

        await api.put(make_slice(SLICES, "10.0.0.2", "10.0.0.3"))  # another cluster has taken over
        await until_async(lambda: upstreams(it) == ("http://10.0.0.2:8000", "http://10.0.0.3:8000"))
        assert it.left[-1] == "http://10.0.0.1:8000"
        assert upstreams(it, "a:sql") == upstreams(it)

        await api.put(make_slice(SLICES, "10.0.0.3", ready=False, terminating=True))
        await until_async(lambda: upstreams(it) == ())
        assert (why(it), why(it, "a:sql")) == (Why.NO_ENDPOINT, Why.NO_ENDPOINT)
        assert it.news.states == {"ready": 1, "no_endpoint": 1}
        refusal = it.cluster.not_ready(it.entry("a"))
        assert (refusal.status, refusal.retry_after_s) == (503, pytest.approx(5, abs=1))

        await api.put(make_slice(SLICES, "fd00::7"))
        await until_async(lambda: upstreams(it) == ("http://[fd00::7]:8000",))
        assert why(it) is None
        assert it.news.states == {"ready": 2}
    asked = [r for r in api.requests if r[1].endswith("/endpointslices")]
    assert {r[1] for r in asked} == {"/apis/discovery.k8s.io/v1/endpointslices"}
    assert {r[2]["labelSelector"] for r in asked} == {"ray.io/serve"}


async def test_each_namespace_is_watched_for_itself(
    api: Any, access: Access, model: Any, make_model: Any, make_slice: Any
) -> None:
    for namespace in ("one", "two"):
        endpoint = f"http://in-{namespace}-serve-svc.{namespace}.svc.cluster.local:8000/x"
        await api.put(make_model(f"in-{namespace}", namespace=namespace, endpoint=endpoint))
    await api.put(make_slice("in-one-serve-svc", "10.0.0.1", namespace="one"))
    await api.put(make_slice("in-two-serve-svc", "10.0.0.9", namespace="three"))
    async with following(access, namespaces=("one", "two")) as it:
        await it.cluster.known()
        assert upstreams(it, "in-one") == ("http://10.0.0.1:8000/x",)
        assert upstreams(it, "in-two") == ("http://in-two-serve-svc.two.svc.cluster.local:8000/x",)
        await api.put(make_slice("in-two-serve-svc", "10.0.0.2", namespace="two"))
        await until_async(lambda: upstreams(it, "in-two") == ("http://10.0.0.2:8000/x",))


async def test_a_service_of_which_nobody_tells_is_asked_itself(
    api: Any, access: Access, model: Any, make_slice: Any
) -> None:
    """As one of another kind, which the operator has put before the engines."""
    await api.put(model())
    await api.put(make_slice(SLICES, "10.0.0.1"))
    async with following(access) as it:
        await it.cluster.known()
        await api.delete("serving", f"{SLICES}-abcde", of="slices")
        await until_async(lambda: upstreams(it) == (SERVICE,))
        assert why(it) is None
        assert it.entry("a").connection_s == 15


async def test_pods_of_a_model_that_is_not_ready_are_not_asked(
    api: Any, access: Access, model: Any, make_slice: Any
) -> None:
    """A proxy answers its probe before the application runs."""
    await api.put(model(state="Deploying", ready=0))
    await api.put(make_slice(SLICES, "10.0.0.1"))
    async with following(access) as it:
        await it.cluster.known()
        assert why(it) is Why.STARTING
        await api.put(model())
        await until_async(lambda: why(it) is None)
        assert upstreams(it) == ("http://10.0.0.1:8000",)


NOT_REACHABLE = {
    "type": "Ready",
    "status": "False",
    "reason": "NotReachable",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


async def test_the_gateway_sees_an_endpoint_before_the_controller_does(
    api: Any, access: Access, model: Any, make_slice: Any
) -> None:
    lora = {"adapters": [{"name": "sql", "source": {"simulator": {}}}]}
    await api.put(model(state="Deploying", ready=0, conditions=[NOT_REACHABLE], lora=lora))
    await api.put(make_slice(SLICES, "10.0.0.1", ready=False))
    async with following(access) as it:
        await it.cluster.known()
        assert why(it) is Why.NO_ENDPOINT
        refusal = it.cluster.not_ready(it.entry("a"))
        assert refusal.retry_after_s == pytest.approx(5, abs=1), "all of its start does not count"
        await api.put(make_slice(SLICES, "10.0.0.1"))
        await until_async(lambda: why(it) is None)
        assert upstreams(it) == ("http://10.0.0.1:8000",)
        assert why(it, "a:sql") is Why.STARTING, "that it is loaded, only the controller can say"
        await api.put(model(state="Deploying", ready=0, conditions=[NOT_REACHABLE], engine_key="unread"))
        await until_async(lambda: why(it) is Why.STARTING)
        await api.delete("serving", f"{SLICES}-abcde", of="slices")
        await api.put(model(state="Deploying", ready=0, conditions=[NOT_REACHABLE]))
        await until_async(lambda: why(it) is Why.NO_ENDPOINT, within_s=5)


async def test_who_was_there_a_moment_ago(api: Any, access: Access, model: Any, make_slice: Any) -> None:
    sleeps = {"autoscaling": {"minReplicas": 0, "maxReplicas": 1}}
    await api.put(model(state="Deploying", ready=0))
    await api.put(make_slice(SLICES, "10.0.0.1"))
    async with following(access, endpoint_wait_s=1) as it:
        await it.cluster.known()
        assert not it.cluster.lapsed(it.entry("a")), "it starts for the first time"
        await api.put(model())
        await until_async(lambda: why(it) is None)
        await api.put(make_slice(SLICES, "10.0.0.1", ready=False))
        await until_async(lambda: why(it) is Why.NO_ENDPOINT)
        await api.put(model(state="Deploying", ready=0))
        await until_async(lambda: why(it) is Why.STARTING)
        assert it.cluster.lapsed(it.entry("a"))
        await until_async(lambda: not it.cluster.lapsed(it.entry("a")))
        await api.put(make_slice(SLICES, "10.0.0.1"))
        await api.put(model(**sleeps))
        await until_async(lambda: why(it) is None)
        await api.put(model(state="Sleeping", ready=0, **sleeps))
        await until_async(lambda: why(it) is Why.ASLEEP)
        await api.put(model(state="Deploying", ready=0, **sleeps))
        await until_async(lambda: why(it) is Why.STARTING)
        assert not it.cluster.lapsed(it.entry("a")), "it wakes"


@pytest.mark.parametrize("refusal", [(403, "endpointslices is forbidden"), (404, "could not find the resource")])
async def test_without_the_right_the_service_is_asked(
    api: Any,
    access: Access,
    model: Any,
    make_slice: Any,
    refusal: tuple[int, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the rights of the release before, or on Kubernetes 1.20. It is said once, and tried again."""
    monkeypatch.setattr("cloudach_kube.reflector._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("cloudach_kube.reflector._LONGEST_PAUSE_S", 0.02)
    await api.put(model())
    await api.put(make_slice(SLICES, "10.0.0.1"))
    api.slices_refusal = refusal
    async with following(access) as it:
        await it.cluster.known()
        assert (upstreams(it), why(it)) == ((SERVICE,), None)
        assert it.entry("a").connection_s == 15
        assert it.cluster.endpoints_note is not None
        assert "all namespaces" in it.cluster.endpoints_note
        assert not it.news.endpoints

        def asked() -> int:
            return len([r for r in api.requests if r[1].endswith("/endpointslices")])

        before = asked()
        await until_async(lambda: asked() > before + 3)
        said = [record for record in caplog.records if "EndpointSlices cannot be watched" in record.message]
        assert len(said) == 1

        api.slices_refusal = None
        await until_async(lambda: upstreams(it) == ("http://10.0.0.1:8000",))
        await until_async(lambda: it.news.endpoints)
        assert it.cluster.endpoints_note is None
        assert it.left == [SERVICE]

        api.slices_refusal = refusal  # what was known would never be put right
        await api.cut()
        await until_async(lambda: upstreams(it) == (SERVICE,))


async def test_pods_stay_as_last_known_while_the_api_server_is_away(
    api: Any, access: Access, model: Any, make_slice: Any, tmp_path: Path
) -> None:
    file = tmp_path / "models.json"
    await api.put(model())
    await api.put(make_slice(SLICES, "10.0.0.1"))
    async with following(access, cache_file=file) as it:
        await it.cluster.known()
        await api.stop()
        await until_async(lambda: it.cluster.out_of_touch_since is not None and not it.news.endpoints)
        assert upstreams(it) == ("http://10.0.0.1:8000",)
        await until_async(file.exists)
    assert "10.0.0.1" not in file.read_text(), "an address may be another pod's by the next start"
    async with following(access, cache_file=file, start_wait_s=0.05) as it:
        await it.cluster.known()
        assert (upstreams(it), why(it)) == ((SERVICE,), None)
        await api.start()
        await until_async(lambda: upstreams(it) == ("http://10.0.0.1:8000",))


@pytest.mark.parametrize("refusal", [None, (401, "Unauthorized")], ids=["out of reach", "unauthorized"])
async def test_pods_that_were_not_heard_of_for_long_are_not_asked(
    api: Any,
    access: Access,
    model: Any,
    make_slice: Any,
    refusal: tuple[int, str] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only this gateway may be cut off: pods come and go, and their addresses become others'. The Service knows."""
    monkeypatch.setattr("cloudach_gateway.catalog.cluster.endpoints._TRUSTED_S", 0.5)
    monkeypatch.setattr("cloudach_kube.reflector._LONGEST_PAUSE_S", 0.1)
    await api.put(model())
    await api.put(make_slice(SLICES, "10.0.0.1"))
    async with following(access) as it:
        await it.cluster.known()
        await until_async(lambda: it.news.endpoints)
        if refusal is None:
            await api.stop()
        else:
            api.refusal = refusal
            await api.cut()
        await until_async(lambda: not it.news.endpoints)
        assert upstreams(it) == ("http://10.0.0.1:8000",)
        await until_async(lambda: upstreams(it) == (SERVICE,))
        assert (why(it), it.entry("a").connection_s) == (None, 15)
        assert it.left[-1] == "http://10.0.0.1:8000"
        assert it.cluster.endpoints_note is not None
        api.refusal = None
        if refusal is None:
            await api.start()
        await until_async(lambda: upstreams(it) == ("http://10.0.0.1:8000",))
        assert it.cluster.endpoints_note is None


async def test_what_was_missed_is_caught_up(api: Any, access: Access, model: Any, make_slice: Any) -> None:
    await api.put(model())
    await api.put(make_slice(SLICES, "10.0.0.1"))
    await api.put(make_slice(SLICES, "10.0.0.2", name="second"))
    async with following(access) as it:
        await it.cluster.known()
        await api.stop()
        await until_async(lambda: not it.news.endpoints)
        await api.delete("serving", "second", of="slices")
        await api.put(make_slice(SLICES, "10.0.0.3"))
        api.oldest = api.version + 1
        await api.start()
        await until_async(lambda: upstreams(it) == ("http://10.0.0.3:8000",))


async def test_where_services_are_asked_their_pods_still_count(
    api: Any, access: Access, model: Any, make_slice: Any
) -> None:
    """A mesh balances by itself, over connections that are new: the old ones stay with the pods of before."""
    await api.put(model())
    await api.put(make_slice(SLICES, "10.0.0.1"))
    async with following(access, engine_addresses="service", service_connection_s=3) as it:
        await it.cluster.known()
        assert (upstreams(it), it.entry("a").connection_s) == ((SERVICE,), 3)
        it.left.clear()
        await api.put(make_slice(SLICES, "10.0.0.2"))
        await until_async(lambda: it.left == [SERVICE])
        await api.put(make_slice(SLICES, "10.0.0.2", ready=False))
        await until_async(lambda: why(it) is Why.NO_ENDPOINT)
        await api.put(make_slice(SLICES, "10.0.0.2"))
        await until_async(lambda: why(it) is None)
        assert upstreams(it) == (SERVICE,)


async def test_who_runs_at_a_model_that_is_deleted_still_finds_its_pods(
    api: Any, access: Access, model: Any, make_slice: Any
) -> None:
    await api.put(model())
    await api.put(make_slice(SLICES, "10.0.0.1"))
    async with following(access) as it:
        await it.cluster.known()
        running = it.entry("a")
        await api.put(model(deleting=True))
        await until_async(lambda: "a" not in it.names)
        assert it.catalog.current(running).upstreams == ("http://10.0.0.1:8000",)
        told: list[None] = []
        with it.catalog.on_change(running, lambda: told.append(None)):
            await api.put(make_slice(SLICES, "10.0.0.2"))
            await until_async(lambda: it.catalog.current(running).upstreams == ("http://10.0.0.2:8000",))
        assert told


async def test_one_slice_makes_one_model_anew(
    api: Any, access: Access, make_model: Any, make_slice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods come and go all the time, and there are hundreds of Models."""
    for number in range(30):
        await api.put(make_model(f"m{number}", endpoint=f"http://m{number}-serve-svc.serving.svc:8000"))
        await api.put(make_slice(f"m{number}-serve-svc", f"10.0.1.{number}"))
    async with following(access) as it:
        await it.cluster.known()
        others = {name: model for name, model in it.catalog if name != "m7"}
        made: list[str] = []
        reached = it.cluster._reached

        def counted(key: Any) -> ServedModel:
            made.append(key[1])
            return reached(key)

        monkeypatch.setattr(it.cluster, "_reached", counted)
        await api.put(make_slice("m7-serve-svc", "10.0.2.7"))
        await until_async(lambda: upstreams(it, "m7") == ("http://10.0.2.7:8000",))
        assert made == ["m7"]
        assert all(it.entry(name) is model for name, model in others.items())
        await api.put(make_slice("m7-serve-svc", "10.0.2.7"))  # nothing new in it
        await api.put(make_slice("m8-serve-svc", "10.0.2.8"))
        await until_async(lambda: upstreams(it, "m8") == ("http://10.0.2.8:8000",))
        assert made == ["m7", "m8"]


async def test_nothing_is_kept_of_what_is_gone(api: Any, access: Access, model: Any, make_slice: Any) -> None:
    await api.put(model())
    async with following(access) as it:
        await until_async(lambda: it.news.endpoints)
        for number in range(1, 60):
            await api.put(make_slice(SLICES, f"10.0.0.{number}", name=f"slice-{number}"))
            await api.put(make_slice("other-serve-svc", f"10.0.1.{number}", name=f"other-{number}"))
            if number > 1:
                await api.delete("serving", f"slice-{number - 1}", of="slices")
                await api.delete("serving", f"other-{number - 1}", of="slices")
        await until_async(lambda: upstreams(it) == ("http://10.0.0.59:8000",))
        await api.delete("serving", "slice-59", of="slices")
        await api.delete("serving", "other-59", of="slices")
        await api.delete("serving", "a")
        await until_async(lambda: "a" not in it.names)
        endpoints = it.cluster._endpoints
        await until_async(lambda: not endpoints._slices)
        assert (endpoints._of, endpoints._pods) == ({}, {})
        assert (it.cluster._service_of, it.cluster._models_of, it.cluster._lapsed_at) == ({}, {}, {})


async def test_many_namespaces_leave_room_for_other_questions(
    api: Any, access: Access, make_model: Any, make_slice: Any
) -> None:
    """Each namespace holds two connections for good: one watches its Models, one their pods."""
    namespaces = tuple(f"team-{number}" for number in range(60))
    for namespace in namespaces:
        endpoint = f"http://x-serve-svc.{namespace}.svc:8000"
        await api.put(make_model(f"in-{namespace}", namespace=namespace, endpoint=endpoint, engine_key="k1"))
        await api.put(make_slice("x-serve-svc", "10.0.0.1", namespace=namespace))
        api.keys[namespace] = {f"in-{namespace}": "secret"}
    async with following(access, namespaces=namespaces, timeout_s=5) as it:
        await until_async(lambda: it.news.states == {"ready": 60})
        await until_async(lambda: it.news.watched and it.news.endpoints)
        with it.cluster.in_use(it.entry("in-team-7")):
            await until_async(lambda: bool(api.uses["team-7", "in-team-7"].get("status")))
