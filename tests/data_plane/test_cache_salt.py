"""Each engine's request carries the salt of its tenant, whichever route, form or attempt it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.data_plane.conftest import PATIENT, Stack, chat
from tests.support.stack import create_key, served_by, start_gateway, start_sim
from tests.support.wire import INVALID, error_of


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with start_sim(rate=500, model="sim") as sim:
        more = {"aliases": [], "upstream_model": "sim"}
        models = [
            served_by(sim),
            {**served_by(sim, **more), "id": "key", "cache_salt": "key"},
            {**served_by(sim, **more), "id": "none", "cache_salt": "none"},
            {**served_by(sim, **more), "id": "openai", "dialect": "openai"},
            {**served_by(sim, **more), "id": "own", "allowed_fields": ["cache_salt"]},
        ]
        config = {"models": models, "timeouts": PATIENT, "listen": {"processes": 2}}
        with start_gateway(config) as gateway:
            yield Stack(sim, gateway, create_key(gateway, tenant="acme"))


@pytest.fixture(scope="module")
def keys(stack: Stack) -> dict[str, str]:
    others = {name: create_key(stack.gateway, tenant=name.split("-")[0], name=name) for name in ("acme-2", "other")}
    return {"acme": stack.key, **others}


def salts(stack: Stack, key: str, path: str = "/v1/chat/completions", **body: Any) -> set[str | None]:
    """Those of all requests that engines got for this one."""
    answer = stack.post(path, key=key, json=body)
    assert answer.status_code == 200, answer.text
    return {entry["cache_salt"] for entry in asked(stack, answer)}


def asked(stack: Stack, answer: httpx.Response) -> list[dict[str, Any]]:
    """What engines got for this answer, each attempt."""
    found = [entry for entry in stack.sim.requests() if entry["id"] == answer.headers["x-request-id"]]
    assert found
    return found


def salt(stack: Stack, key: str, path: str = "/v1/chat/completions", **body: Any) -> str | None:
    (found,) = salts(stack, key, path, **body)
    return found


def test_a_tenant_has_one_salt_in_every_form(stack: Stack, keys: dict[str, str]) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    found = {
        salt(stack, keys[name], path, **{**body, "max_tokens": 2, "stream": stream})
        for name in ("acme", "acme-2")
        for path, body in (
            ("/v1/chat/completions", chat()),
            ("/v1/chat/completions", chat(tools=tools)),
            ("/v1/completions", {"model": "sim", "prompt": "Hello"}),
        )
        for stream in (False, True)
    }
    (own,) = found
    assert own is not None
    assert len(own) == 43
    assert salt(stack, keys["other"], **chat(max_tokens=2)) not in {own, None}


def test_the_models_setting(stack: Stack, keys: dict[str, str]) -> None:
    by_key = [salt(stack, key, **chat(model="key", max_tokens=2)) for key in keys.values()]
    assert None not in by_key
    assert len(set(by_key)) == len(by_key)
    assert {salt(stack, key, **chat(model="none", max_tokens=2)) for key in keys.values()} == {None}
    assert salt(stack, keys["acme"], **chat(model="openai", max_tokens=2)) is None


def test_nobody_chooses_it(stack: Stack, keys: dict[str, str]) -> None:
    theirs = salt(stack, keys["other"], **chat(model="own", max_tokens=2))
    for model in ("sim", "key", "none", "openai"):
        answer = stack.post(json=chat(model=model, cache_salt=theirs))
        error_of(answer, 400, INVALID, "unsupported_parameter", "cache_salt")
    mine = salt(stack, keys["acme"], **chat(model="own", max_tokens=2))
    divided = salt(stack, keys["acme"], **chat(model="own", max_tokens=2, cache_salt=theirs))
    assert divided not in {mine, theirs, None}, "where a caller may, it divides its own cache further"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_continuation_has_the_same(stack: Stack, keys: dict[str, str], path: str, stream: bool) -> None:
    body = chat() if "chat" in path else {"model": "sim", "prompt": "Hello"}
    own = salt(stack, keys["acme"], path, **{**body, "max_tokens": 2})
    assert own is not None
    stack.sim.arm("end@5", times=1)
    answer = stack.post(path, key=keys["acme"], json={**body, "max_tokens": 20, "stream": stream})
    assert answer.status_code == 200
    attempts = asked(stack, answer)
    assert len(attempts) == 2
    assert {entry["cache_salt"] for entry in attempts} == {own}
