"""A model's context is learned from its engines once, and known when they are gone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from cloudach_gateway.catalog import ServedModel
from cloudach_gateway.proxy.placing import context_lengths as module
from cloudach_gateway.proxy.placing.context_lengths import ContextLengths
from cloudach_gateway.settings import Model

pytestmark = pytest.mark.usefixtures("virtual_time")


def model(**fields: Any) -> ServedModel:
    """One and the same at every call, as the catalog's is: its time of creation is part of what it is known by."""
    upstreams = ("http://a", "http://b", "http://c")
    settings = Model(**{"id": "m", "upstream_model": "big", "upstreams": upstreams, **fields})
    return replace(ServedModel.from_settings(settings), created=1)


def listed(*lengths: tuple[str, object]) -> bytes:
    return json.dumps({"data": [{"id": name, "max_model_len": length} for name, length in lengths]}).encode()


class Engines:
    def __init__(self, **answers: bytes | None) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.takes_s = 0.0

    async def fetch(self, _: ServedModel, upstream: str) -> bytes | None:
        name = upstream.removeprefix("http://")
        self.asked.append(name)
        await asyncio.sleep(self.takes_s)
        return self.answers.get(name)


async def test_from_the_settings_nobody_is_asked() -> None:
    engines = Engines()
    lengths = ContextLengths(engines.fetch, patience_s=1)
    assert await lengths.of(model(max_model_len=100)) == 100
    assert engines.asked == []


@pytest.mark.parametrize(
    "useless",
    [None, b"not JSON", b"[]", b"{}", b'{"data":[1]}', b'{"data":3}', listed(("other", 5)), listed(("big", "5"))],
)
async def test_the_first_engine_that_knows(useless: bytes | None) -> None:
    engines = Engines(a=useless, b=listed(("other", 7), ("big", 4096)), c=listed(("big", 1)))
    lengths = ContextLengths(engines.fetch, patience_s=1)
    assert await lengths.of(model()) == 4096
    assert engines.asked == ["a", "b"]
    assert await lengths.of(model()) == 4096
    assert engines.asked == ["a", "b"]


async def test_an_adapters_is_its_parents() -> None:
    cards = [
        {"id": "big", "max_model_len": 4096},
        {"id": "big:sql", "parent": "big", "max_model_len": None},
        {"id": "big:lost", "parent": "gone"},
    ]
    engines = Engines(a=json.dumps({"data": cards}).encode())
    lengths = ContextLengths(engines.fetch, patience_s=1)
    assert await lengths.of(model(id="a", upstream_model="big:sql")) == 4096
    assert await lengths.of(model(id="b", upstream_model="big:lost")) is None


async def test_hundreds_ask_at_once_and_one_is_asked() -> None:
    engines = Engines(a=listed(("big", 4096)))
    engines.takes_s = 0.05
    lengths = ContextLengths(engines.fetch, patience_s=1)
    assert await asyncio.gather(*(lengths.of(model()) for _ in range(300))) == [4096] * 300
    assert engines.asked == ["a"]


async def test_who_does_not_wait_takes_nothing_from_the_others() -> None:
    engines = Engines(a=listed(("big", 4096)))
    engines.takes_s = 0.05
    lengths = ContextLengths(engines.fetch, patience_s=1)
    waiting = [asyncio.create_task(lengths.of(model())) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    assert await asyncio.gather(*waiting[1:]) == [4096, 4096]


async def test_it_is_learned_before_it_is_needed() -> None:
    engines = Engines(a=listed(("big", 4096)))
    lengths = ContextLengths(engines.fetch, patience_s=1)
    lengths.learn(model())
    lengths.learn(model())
    await asyncio.sleep(0.02)
    engines.answers.clear()
    assert await lengths.of(model()) == 4096
    assert engines.asked == ["a"]


async def test_patience_and_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Engines()
    lengths = ContextLengths(engines.fetch, patience_s=1)
    assert await lengths.of(model()) is None
    engines.answers["a"] = listed(("big", 4096))
    assert await lengths.of(model()) is None, "not for every request"
    assert engines.asked == ["a", "b", "c"]
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    lengths = ContextLengths(Engines().fetch, patience_s=1)
    assert [await lengths.of(model()) for _ in range(2)] == [None, None]

    slow = Engines(a=listed(("big", 4096)))
    slow.takes_s = 0.2
    lengths = ContextLengths(slow.fetch, patience_s=0.05)
    assert await lengths.of(model()) is None
    await asyncio.sleep(0.3)
    assert await lengths.of(model()) == 4096
    assert slow.asked == ["a"]


async def test_only_engines_of_vllms_dialect_tell_it() -> None:
    engines = Engines(a=listed(("big", 4096)))
    assert await ContextLengths(engines.fetch, patience_s=1).of(model(dialect="openai")) is None
    assert engines.asked == []


async def test_stopping_in_the_middle_of_it() -> None:
    engines = Engines(a=listed(("big", 4096)))
    engines.takes_s = 60
    lengths = ContextLengths(engines.fetch, patience_s=0.01)
    assert await lengths.of(model()) is None
    lengths.stop()
    await asyncio.sleep(0.01)
    assert [task for task in asyncio.all_tasks() if "context" in task.get_name()] == []


async def test_it_is_learned_anew_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FRESH_S", 0.0)
    engines = Engines(a=listed(("big", 4096)))
    lengths = ContextLengths(engines.fetch, patience_s=1)
    own = model()
    assert await lengths.of(own) == 4096
    engines.answers["a"] = listed(("big", 8192))
    assert await lengths.of(own) == 4096, "what is known is not waited for"
    await asyncio.sleep(0.01)
    assert await lengths.of(own) == 8192
    engines.answers["a"] = None
    await asyncio.sleep(0.01)
    assert await lengths.of(own) == 8192, "its engines have gone"


async def test_another_model_under_an_old_name_is_another() -> None:
    engines = Engines(a=listed(("big", 4096)))
    lengths = ContextLengths(engines.fetch, patience_s=1)
    old = replace(model(), created=1)
    assert await lengths.of(old) == 4096
    engines.answers["a"] = listed(("big", 8192))
    assert await lengths.of(replace(old, created=2)) == 8192
    assert await lengths.of(old) == 4096


async def test_models_that_come_and_go_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    lengths = ContextLengths(Engines(a=listed(("big", 4096))).fetch, patience_s=1)
    for number in range(100):
        assert await lengths.of(model(id=f"m{number}")) == 4096
    await asyncio.sleep(1)
    assert (len(lengths._known), len(lengths._not_before), len(lengths._tasks)) == (10, 10, 0)
