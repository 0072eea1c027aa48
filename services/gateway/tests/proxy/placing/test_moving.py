"""Engines that move while a request runs: it goes to where the model is now, and waits while that is nowhere."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from cloudach_gateway.catalog import Absence, Why
from cloudach_gateway.errors import ModelNotFound, ModelNotReady, UpstreamError
from cloudach_gateway.proxy.engine.pool import Origin

from tests.support.waiting import until_async
from tests.support.wire import STREAM_HEAD

from .runs import Heard, token
from .scene import Scene, answers, gone


async def test_pods_that_are_gone_cost_no_attempt(start_engine: Any) -> None:
    """Nothing was sent to them."""
    scene, heard = Scene(gone(), gone(), gone(), (await start_engine(answers())).url), Heard()
    await scene.ask(heard)
    assert len(heard.got) == 31


@pytest.mark.parametrize("known", [True, False], ids=["all gone", "none there"])
async def test_a_new_request_waits_for_the_next_pod(start_engine: Any, known: bool) -> None:
    scene, heard = Scene(*([gone(), gone()] if known else [])), Heard()
    task = scene.ask(heard)
    await until_async(lambda: scene.client.beats >= 3)
    scene.move()
    await asyncio.sleep(0.05)
    assert not task.done()
    scene.move((await start_engine(answers())).url)
    await task
    assert len(heard.got) == 31


async def test_that_wait_ends(start_engine: Any) -> None:
    for upstreams in ([gone()], []):
        scene, heard = Scene(*upstreams), Heard()
        with pytest.raises(ModelNotReady) as refused:
            await scene.ask(heard, patience_s=0.3)
        assert refused.value.retry_after_s is not None
        assert "cannot be reached" in refused.value.message


async def test_pods_that_come_and_go_as_fast_as_they_are_asked_prolong_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, heard = Scene("http://10.0.0.0:8000", retries=1), Heard()
    asked: list[str] = []

    async def connect(origin: Origin) -> None:
        await asyncio.sleep(0.02)
        asked.append(origin.host)
        scene.move(f"http://10.0.0.{len(asked)}:8000")
        raise TimeoutError

    monkeypatch.setattr(scene.engines._pool, "connect", connect)
    with pytest.raises(ModelNotReady):
        async with asyncio.timeout(10):
            await scene.ask(heard, patience_s=0.3)
    assert 3 <= len(asked) <= 16


async def test_whoever_has_waited_long_enough_before_tries_again_all_the_same() -> None:
    """The first connection to a pod that is ready may be refused: who lets connections through is told last."""
    scene, heard = Scene(gone(), retries=2), Heard()
    with pytest.raises(ModelNotReady):
        await scene.ask(heard, patience_s=0)
    assert len(heard.moves) == 2


async def test_an_engine_of_the_configuration_file_is_not_waited_for() -> None:
    scene = Scene(gone(), resource=False, retries=1)
    heard = Heard()
    with pytest.raises(UpstreamError):
        await scene.ask(heard)
    assert len(heard.moves) == 1


def breaks_when(moved: asyncio.Event) -> Any:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD, *(token(n) for n in range(10)))
        await moved.wait()

    return play


async def test_a_stream_that_breaks_goes_to_where_the_model_is_by_then(start_engine: Any) -> None:
    """Not once more to the pod of before, though that still listens."""
    moved = asyncio.Event()
    old, new = await start_engine(breaks_when(moved)), await start_engine(answers(10))
    scene, heard = Scene(old.url), Heard()
    task = scene.ask(heard)
    await until_async(lambda: len(heard.got) == 10)
    scene.move(new.url)
    await asyncio.sleep(0.1)
    assert not task.done(), "it ends where it runs"
    moved.set()
    await task
    assert (old.connections, new.connections) == (1, 1)
    assert heard.moves == ["failed over after 10"]
    assert len(heard.got) == 31


async def test_a_stream_that_breaks_waits_for_the_next_pod(start_engine: Any) -> None:
    moved = asyncio.Event()
    old = await start_engine(breaks_when(moved))
    scene, heard = Scene(old.url), Heard()
    task = scene.ask(heard)
    await until_async(lambda: len(heard.got) == 10)
    scene.move()
    moved.set()
    await until_async(lambda: scene.client.beats >= 3)
    new = await start_engine(answers(10))
    scene.move(new.url)
    await task
    assert (old.connections, new.connections, len(heard.got)) == (1, 1, 31)
    assert heard.moves == ["failed over after 10"]


async def test_a_loss_is_counted_for_all_pods_of_a_model(start_engine: Any) -> None:
    """The proxy of each pod passes requests on to any engine of the cluster: who was lost may have been at the same."""

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + token(0))
        await peer.until_closed()

    one, two = await start_engine(play), await start_engine(play)
    scene, first, second = Scene(one.url, two.url), Heard(), Heard()
    tasks = [scene.ask(first), scene.ask(second)]
    await until_async(lambda: first.got and second.got)
    assert scene.engines.suspects.any_suspect("serving/m")
    assert not scene.engines.suspects.any_suspect(one.url)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("known", [True, False], ids=["pods are gone", "no pod is there"])
@pytest.mark.parametrize("how", ["deleted", "being deleted", "switched off"])
async def test_a_request_is_told_at_once_that_its_model_was_taken_off(how: str, known: bool) -> None:
    """It does not wait for a pod that will not come."""
    scene, heard = Scene(*([gone()] if known else [])), Heard()
    task = scene.ask(heard, patience_s=30)
    await until_async(lambda: scene.client.beats >= 2)
    assert not task.done()
    off = replace(scene.model, upstreams=(), absence=Absence(Why.OFF))
    scene.catalog.replace([off] if how == "switched off" else [], [scene.model] if how == "being deleted" else [])
    async with asyncio.timeout(5):
        with pytest.raises(ModelNotReady if how == "switched off" else ModelNotFound) as told:
            await task
    assert "cannot be reached" not in told.value.message, "it says what has become of the model"


@pytest.mark.parametrize("how", ["being deleted", "switched off"])
async def test_so_is_a_stream_that_broke_when_the_last_pod_of_its_model_had_gone(start_engine: Any, how: str) -> None:
    broke = asyncio.Event()
    old = await start_engine(breaks_when(broke))
    scene, heard = Scene(old.url), Heard()
    task = scene.ask(heard)
    await until_async(lambda: len(heard.got) == 10)
    off = replace(scene.model, upstreams=(), absence=Absence(Why.OFF))
    scene.catalog.replace([off] if how == "switched off" else [], [off] if how == "being deleted" else [])
    await asyncio.sleep(0.1)
    assert not task.done(), "it runs where it runs"
    broke.set()
    async with asyncio.timeout(5):
        with pytest.raises(UpstreamError):
            await task
    assert len(heard.got) == 10


async def test_a_stream_of_a_model_that_is_being_deleted_goes_on_at_its_other_engine(start_engine: Any) -> None:
    broke = asyncio.Event()
    old, other = await start_engine(breaks_when(broke)), await start_engine(answers(10))
    scene, heard = Scene(old.url), Heard()
    task = scene.ask(heard)
    await until_async(lambda: len(heard.got) == 10)
    scene.catalog.replace([], [replace(scene.model, upstreams=(other.url,))])
    broke.set()
    await task
    assert len(heard.got) == 31
