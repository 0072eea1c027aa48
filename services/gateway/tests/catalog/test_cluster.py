"""The catalog as it follows an API server, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cloudach_gateway.catalog import Why
from cloudach_gateway.errors import ModelNotFound, ModelNotReady
from cloudach_kube.access import Access

from tests.support.waiting import until_async

from .following import FILE, SLEEPS, USED, WAKE, Following, following


async def test_models_come_change_and_go(api: Any, access: Access, make_model: Any) -> None:
    await api.put(make_model("a", aliases=["x"]))
    async with following(access, FILE) as it:
        await it.cluster.known()
        assert it.names == {"from-file", "a", "x"}
        await api.put(make_model("b", ready=0, state="Deploying"))
        await until_async(lambda: "b" in it.names)
        assert it.entry("b").absence is not None
        await api.put(make_model("b", note="\u0085 is no end of a line"))
        await until_async(lambda: it.entry("b").absence is None)
        await api.put(make_model("a", aliases=["y"]))
        await until_async(lambda: it.names == {"from-file", "a", "y", "b"})
        await api.delete("serving", "a")
        await until_async(lambda: it.names == {"from-file", "b"})
        assert isinstance(it.catalog.missing("a"), ModelNotFound)
        assert it.news.states == {"ready": 1}


async def test_a_long_list_comes_in_pages(api: Any, access: Access, make_model: Any) -> None:
    api.page = 2
    for number in range(5):
        await api.put(make_model(f"m{number}"))
    async with following(access) as it:
        await it.cluster.known()
        assert len(it.names) == 5
    assert [r[2].get("continue") for r in api.asked("GET") if "watch" not in r[2]] == [None, "2", "4"]


async def test_only_the_namespaces_that_are_named(api: Any, access: Access, make_model: Any) -> None:
    for namespace in ("one", "two", "three"):
        await api.put(make_model(f"in-{namespace}", namespace=namespace))
    async with following(access, namespaces=("one", "two"), label_selector="tier=a") as it:
        await it.cluster.known()
        assert it.names == {"in-one", "in-two"}
        await until_async(lambda: it.news.watched)
        await api.put(make_model("more", namespace="two"))
        await until_async(lambda: "more" in it.names)
    assert {r[1] for r in api.questions} == {
        f"/apis/cloudach.dev/v1alpha1/namespaces/{namespace}/models" for namespace in ("one", "two")
    }
    assert all(r[2]["labelSelector"] == "tier=a" for r in api.questions)


async def test_an_outage_changes_nothing_and_what_was_missed_is_caught_up(
    api: Any, access: Access, make_model: Any
) -> None:
    await api.put(make_model("a"))
    await api.put(make_model("b"))
    async with following(access) as it:
        await until_async(lambda: it.news.watched)
        await api.stop()
        await until_async(lambda: it.cluster.out_of_touch_since is not None)
        assert not it.news.watched
        assert it.names == {"a", "b"}
        assert it.entry("a").absence is None
        await api.delete("serving", "a")
        await api.put(make_model("c"))
        await api.start()
        await until_async(lambda: it.names == {"b", "c"})
        await until_async(lambda: it.cluster.out_of_touch_since is None and it.news.watched)


async def test_a_version_that_is_gone_is_listed_anew(api: Any, access: Access, make_model: Any) -> None:
    await api.put(make_model("a"))
    async with following(access) as it:
        await until_async(lambda: it.news.watched)
        await api.delete("serving", "a")
        await until_async(lambda: not it.names)
        expired = {"kind": "Status", "code": 410, "message": "too old resource version"}
        api.objects.clear()
        api.objects[("serving", "b")] = make_model("b")  # nobody was told
        await api.say({"type": "ERROR", "object": expired})
        await until_async(lambda: it.names == {"b"})


async def test_a_refusal_at_the_start(
    api: Any, access: Access, make_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Models of the file are served; what is not known is not denied."""
    api.refusal = (403, "models.cloudach.dev is forbidden")
    await api.put(make_model("a"))
    async with following(access, FILE, start_wait_s=0.2) as it:
        await it.cluster.known()
        assert it.names == {"from-file"}
        missing = it.catalog.missing("a")
        assert isinstance(missing, ModelNotReady)
        assert missing.retry_after_s is not None
        await until_async(lambda: any("forbidden" in record.__dict__.get("cause", "") for record in caplog.records))
        api.refusal = None
        await until_async(lambda: "a" in it.names)
        assert isinstance(it.catalog.missing("b"), ModelNotFound)


async def test_nothing_known_is_not_ready(api: Any, access: Access, make_model: Any) -> None:
    api.refusal = (500, "down")
    async with following(access, start_wait_s=0.05) as it:
        waiting = asyncio.create_task(it.cluster.known())
        await until_async(lambda: len(api.requests) > 1)
        assert not waiting.done()
        api.refusal = None
        await waiting
        assert it.catalog.complete


async def test_the_token_is_read_anew(api: Any, access: Access, tmp_path: Path) -> None:
    async with following(access) as it:
        await until_async(lambda: it.news.watched)
        (tmp_path / "token").write_text("second")
        await api.stop()
        await api.start()
        await until_async(lambda: api.requests[-1][3]["authorization"] == "Bearer second")
    assert api.requests[0][3]["authorization"] == "Bearer first"


async def test_a_restart_without_the_api_server(api: Any, access: Access, make_model: Any, tmp_path: Path) -> None:
    file = tmp_path / "cache" / "models.json"
    await api.put(make_model("a"))
    async with following(access, cache_file=file) as it:
        await until_async(lambda: it.news.watched)
        await api.put(make_model("b", state="Failed", ready=0))
        await until_async(lambda: "b" in it.names)
    await api.stop()
    async with following(access, cache_file=file, start_wait_s=0.05) as it:
        await it.cluster.known()
        assert it.names == {"a", "b"}
        assert it.entry("a").upstreams == ("http://engine:8000",)
        assert isinstance(it.catalog.missing("c"), ModelNotReady)
        await api.delete("serving", "a")
        await api.start()
        await until_async(lambda: it.names == {"b"})
        assert isinstance(it.catalog.missing("a"), ModelNotFound)
    assert json.loads(file.read_text())["models"][0]["metadata"]["name"] == "b"


@pytest.mark.parametrize("content", ["", "{}", '{"format": 99, "models": []}', '{"format": 1, "models": [1]}'])
async def test_a_cache_that_is_broken_is_said_and_passed_over(
    api: Any, access: Access, make_model: Any, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "models.json"
    file.write_text(content)
    await api.put(make_model("a"))
    async with following(access, cache_file=file) as it:
        await it.cluster.known()
        assert it.names == {"a"}
    assert "cannot be used" in caplog.text


async def test_a_conflict_is_logged_once(
    api: Any, access: Access, make_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await api.put(make_model("from-file"))
    async with following(access, FILE) as it:
        await it.cluster.known()
        assert it.entry("from-file") is FILE
        assert it.news.states == {"refused": 1}
        await api.put(make_model("b"))
        await until_async(lambda: "b" in it.names)
    assert sum("not served as it says" in record.message for record in caplog.records) == 1


async def test_changes_are_logged(api: Any, access: Access, make_model: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with following(access) as it:
        await until_async(lambda: it.news.watched)
        await api.put(make_model("a", ready=0, state="Deploying"))
        await until_async(lambda: "a" in it.names)
        await api.put(make_model("a"))
        await until_async(lambda: it.entry("a").absence is None)
        await api.put(make_model("a", annotations={"a": "b"}))  # nothing that matters
        await api.delete("serving", "a")
        await until_async(lambda: not it.names)
    told = [(r.message, r.__dict__.get("state")) for r in caplog.records if r.message.startswith("model ")]
    assert told == [("model new", "starting"), ("model changed", "ready"), ("model gone", None)]


async def test_one_wish_wakes_for_many_requests(api: Any, access: Access, make_model: Any) -> None:
    await api.put(make_model("a", state="Sleeping", ready=0, endpoint=None, **SLEEPS))
    async with following(access, wake_again_s=60) as it:
        await until_async(lambda: it.news.watched)
        model = it.entry("a")
        assert model.absence is not None
        assert model.absence.why is Why.ASLEEP
        for _ in range(50):
            with it.cluster.awaited(model):
                pass
        await until_async(lambda: it.news.wakes == ["a"])
        (patch,) = api.asked("PATCH")
        assert patch[1] == "/apis/cloudach.dev/v1alpha1/namespaces/serving/modeluses/a/status"
        assert patch[3]["content-type"] == "application/merge-patch+json"
        told = json.loads(patch[4])
        assert (list(told), list(told["status"])) == (["status"], [WAKE])


def why(it: Following) -> Why | None:
    absence = it.entry("a").absence
    return None if absence is None else absence.why


async def test_a_wish_that_was_not_heard_is_said_again(api: Any, access: Access, make_model: Any) -> None:
    await api.put(make_model("a", state="Sleeping", ready=0, **SLEEPS))
    async with following(access, wake_again_s=0.1) as it:
        await until_async(lambda: it.news.watched)
        with it.cluster.awaited(it.entry("a")):
            await until_async(lambda: len(it.news.wakes) >= 2)
            await api.put(make_model("a", state="Deploying", ready=0, **SLEEPS))
            await until_async(lambda: why(it) is Why.STARTING)
            wished = len(it.news.wakes)
            await asyncio.sleep(0.4)
            assert len(it.news.wakes) <= wished + 1, "who is waking is not woken"


async def test_what_another_gateway_has_just_written_is_not_written_again(
    api: Any, access: Access, make_model: Any
) -> None:
    await api.put(make_model("a", state="Sleeping", ready=0, **SLEEPS))
    async with following(access, wake_again_s=60) as one, following(access, wake_again_s=60) as two:
        await until_async(lambda: one.news.watched and two.news.watched)
        with one.cluster.awaited(one.entry("a")), one.cluster.in_use(one.entry("a")):
            await until_async(lambda: len(api.asked("PATCH")) == 2)
        await until_async(lambda: one.news.wakes == ["a"])
        with two.cluster.awaited(two.entry("a")), two.cluster.in_use(two.entry("a")):
            await until_async(lambda: len([r for r in api.asked("GET") if r[1].endswith("/modeluses/a")]) == 4)
            await asyncio.sleep(0.1)
    assert len(api.asked("PATCH")) == 2
    assert (one.news.wakes, two.news.wakes) == (["a"], [])


async def test_a_long_stream_keeps_its_model_awake(api: Any, access: Access, make_model: Any) -> None:
    await api.put(make_model("a", **SLEEPS))
    async with following(access, in_use_every_s=1) as it:
        await until_async(lambda: it.news.watched)
        with it.cluster.in_use(it.entry("a")):
            await until_async(lambda: len(api.asked("PATCH")) >= 3)
        await until_async(lambda: not it.cluster._in_use._tasks)  # one may be on its way
        written = len(api.asked("PATCH"))
        assert all(USED in r[4].decode() for r in api.asked("PATCH"))
        await asyncio.sleep(1.5)
        assert len(api.asked("PATCH")) == written, "nobody uses it any more"


async def test_a_mark_that_others_made_is_as_old_as_they_made_it(api: Any, access: Access, make_model: Any) -> None:
    """Else two gateways in turn would let it get twice as old as the controller allows."""
    await api.put(make_model("a", **SLEEPS))
    made = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
    api.uses[("serving", "a")]["status"] = {USED: made}
    async with following(access, in_use_every_s=40) as it:
        await until_async(lambda: it.news.watched)
        with it.cluster.in_use(it.entry("a")):
            await until_async(lambda: it.cluster._in_use._marked and not it.cluster._in_use._tasks)
            (marked,) = it.cluster._in_use._marked.values()
            age_s = asyncio.get_running_loop().time() - marked
    assert 29 < age_s < 40
    assert api.asked("PATCH") == []


async def test_what_cannot_be_told_yet_is_told_soon(api: Any, access: Access, make_model: Any) -> None:
    """While the platform is upgraded, the controller makes a Model's ModelUse a moment after the gateway has come."""
    await api.put(make_model("a", state="Sleeping", ready=0, **SLEEPS))
    use = api.uses.pop(("serving", "a"))
    async with following(access, wake_again_s=60, in_use_every_s=1) as it:
        await until_async(lambda: it.news.watched)
        with it.cluster.awaited(it.entry("a")), it.cluster.in_use(it.entry("a")):
            await until_async(lambda: len([r for r in api.asked("GET") if "/modeluses/" in r[1]]) >= 2)
            api.uses[("serving", "a")] = use
            await until_async(lambda: set(use.get("status", {})) == {WAKE, USED})
            await until_async(lambda: it.news.wakes == ["a"])  # it has to hear that it was heard


async def test_rights_that_are_missing_are_said(
    api: Any, access: Access, make_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await api.put(make_model("a", state="Sleeping", ready=0, **SLEEPS))
    async with following(access) as it:
        await until_async(lambda: it.news.watched)
        api.refusal = (403, "cannot patch resource modeluses/status")
        with it.cluster.awaited(it.entry("a")):
            await until_async(lambda: "cannot be woken" in caplog.text)
        assert it.news.wakes == []
    assert any("cannot patch" in record.__dict__.get("cause", "") for record in caplog.records)


async def test_what_is_said_to_who_asks(api: Any, access: Access, make_model: Any) -> None:
    now = datetime.now(UTC).isoformat()
    await api.put(make_model("starting", state="Deploying", ready=0, created=now))
    await api.put(make_model("stuck", state="Failed", ready=0))
    async with following(access) as it:
        await it.cluster.known()
        starting = it.cluster.not_ready(it.entry("starting"))
        stuck = it.cluster.not_ready(it.entry("stuck"))
    assert (starting.status, starting.code) == (503, "model_not_ready")
    assert b"x-should-retry" not in dict(starting.retry_headers())
    assert dict(stuck.retry_headers())[b"x-should-retry"] == b"false"
