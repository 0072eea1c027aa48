"""Keys of engines: read when a Model speaks of one, kept until the next one is known, never shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cloudach_gateway.catalog import Absence, ServedModel, Why
from cloudach_kube.access import Access
from cloudach_model_api.keys import key_id

from tests.support.waiting import until_async

from .following import following

FIRST, SECOND = "first-key", "second-key"


def asked(api: Any) -> int:
    return len([r for r in api.asked("GET") if r[1].endswith("/secrets/cloudach-engine-keys")])


async def test_a_model_that_asks_for_a_key_is_sent_its_own(api: Any, access: Access, make_model: Any) -> None:
    api.keys["serving"] = {"a": f"{FIRST}\n", "b": SECOND}
    api.keys["other"] = {"a": "of another namespace"}
    for name, key in (("a", FIRST), ("b", SECOND)):
        await api.put(make_model(name, engine_key=key_id(key)))
    await api.put(make_model("open"))
    async with following(access) as it:
        await it.cluster.known()
        assert {name: entry.api_key for name, entry in it.catalog} == {"a": FIRST, "b": SECOND, "open": None}
        assert all(entry.absence is None for _, entry in it.catalog), "ready from the first moment"
        assert asked(api) == 1, "one question for a namespace"
        assert FIRST not in repr(it.entry("a"))


async def test_an_adapter_has_its_models_key(api: Any, access: Access, make_model: Any) -> None:
    api.keys["serving"] = {"a": FIRST}
    lora = {"adapters": [{"name": "sql", "source": {"simulator": {}}}]}
    await api.put(make_model("a", engine_key=key_id(FIRST), lora=lora))
    async with following(access) as it:
        await it.cluster.known()
        assert it.entry("a:sql").api_key == FIRST


async def test_a_new_key_is_read_once_it_is_spoken_of(api: Any, access: Access, make_model: Any) -> None:
    """Until then the old one is sent, and at no moment none."""
    api.keys["serving"] = {"a": FIRST}
    await api.put(make_model("a", engine_key=key_id(FIRST)))
    async with following(access) as it:
        await it.cluster.known()
        api.keys["serving"]["a"] = SECOND
        await api.put(make_model("a", engine_key=key_id(SECOND)))
        seen = set()

        def changed() -> bool:
            seen.add((it.entry("a").api_key, it.entry("a").absence))
            return it.entry("a").api_key == SECOND

        await until_async(changed)
        assert seen <= {(FIRST, None), (SECOND, None)}
        assert asked(api) == 2


async def test_engines_without_a_lock_that_get_one_are_served_on(
    api: Any, access: Access, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.put(make_model("a"))
    async with following(access) as it:
        await it.cluster.known()
        assert it.entry("a").api_key is None
        absences: list[Absence | None] = []
        replace = it.catalog.replace

        def replaced(entries: Sequence[ServedModel], leaving: Sequence[ServedModel]) -> None:
            absences.extend(entry.absence for entry in entries)
            replace(entries, leaving)

        monkeypatch.setattr(it.catalog, "replace", replaced)
        await api.put(make_model("a", engine_key=key_id(FIRST)))  # the Secret comes a moment later
        await until_async(lambda: asked(api) > 0)
        api.keys["serving"] = {"a": FIRST}
        await until_async(lambda: it.entry("a").api_key == FIRST)
        assert set(absences) == {None}
        await api.put(make_model("a"))
        await until_async(lambda: it.entry("a").api_key is None)


async def test_without_its_key_a_model_is_not_asked(
    api: Any, access: Access, make_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its engines would refuse each request, and clients would read that the platform is broken."""
    await api.put(make_model("a", engine_key=key_id(FIRST)))
    async with following(access, start_wait_s=0.2) as it:
        await it.cluster.known()
        absence = it.entry("a").absence
        assert absence is not None
        assert absence.why is Why.STARTING
        await until_async(lambda: "API keys of engines cannot be read" in caplog.text)
        api.keys["serving"] = {"a": FIRST}
        await until_async(lambda: it.entry("a").absence is None)
        assert it.entry("a").api_key == FIRST


async def test_keys_outlive_the_api_server(api: Any, access: Access, make_model: Any, tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    api.keys["serving"] = {"a": FIRST}
    await api.put(make_model("a", engine_key=key_id(FIRST)))
    async with following(access, cache_file=file) as it:
        await it.cluster.known()
        await until_async(lambda: file.exists() and FIRST in file.read_text())
    assert file.stat().st_mode & 0o077 == 0
    await api.stop()
    async with following(access, cache_file=file, start_wait_s=0.05) as it:
        await it.cluster.known()
        assert (it.entry("a").api_key, it.entry("a").absence) == (FIRST, None)
        await api.start()


async def test_a_cache_of_the_release_before_has_no_keys(
    api: Any, access: Access, make_model: Any, tmp_path: Path
) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"format": 1, "models": [make_model("a")]}))
    await api.stop()
    async with following(access, cache_file=file, start_wait_s=0.05) as it:
        await it.cluster.known()
        assert it.names == {"a"}
        await api.start()
