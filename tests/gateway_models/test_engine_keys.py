"""A gateway and an engine that asks for a key, with the key in its Secret on a real API server."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator

import httpx
import pytest
from cloudach_model_api.keys import key_id

from tests.gateway_models.conftest import NAMESPACE, Site
from tests.support.stack import start_sim
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)

FIRST, SECOND = "0123456789abcdef" * 4, "fedcba9876543210" * 4


def write(site: Site, **keys: str) -> None:
    """As the controller does."""
    metadata = {"name": "cloudach-engine-keys", "namespace": NAMESPACE}
    data = {name: b64encode(key.encode()).decode() for name, key in keys.items()}
    site.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


@pytest.fixture
def locked(site: Site) -> Iterator[str]:
    """The URL of an engine that takes two keys, as while one is replaced by the other."""
    with start_sim(rate=200, model="sim", api_key=[FIRST, SECOND]) as engine:
        yield engine.url
    site.kubectl("-n", NAMESPACE, "delete", "secret", "cloudach-engine-keys", "--ignore-not-found")


def used(url: str, key: str | None) -> int:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"model": "sim", "prompt": "Hi", "max_tokens": 1}
    return httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=60).status_code


def test_the_gateway_alone_reaches_an_engine_with_a_key(site: Site, locked: str) -> None:
    assert [used(locked, key) for key in (None, "sk-guessed", site.key, FIRST)] == [401, 401, 401, 200]
    write(site, locked=FIRST)
    site.apply("locked")
    site.status("locked", "Ready", ready=1, endpoint=locked, engineKey=key_id(FIRST))
    until(lambda: site.ask("locked").status_code == 200)
    assert FIRST not in site.gateway.output


def test_a_key_is_replaced_while_requests_run(site: Site, locked: str) -> None:
    write(site, locked=FIRST)
    site.apply("locked")
    site.status("locked", "Ready", ready=1, endpoint=locked, engineKey=key_id(FIRST))
    until(lambda: site.ask("locked").status_code == 200)
    write(site, **{"locked": SECOND, "locked.also": FIRST})
    site.kubectl(
        *("-n", NAMESPACE, "patch", "model", "locked", "--subresource=status", "--type=merge"),
        *("-p", json.dumps({"status": {"engineKey": key_id(SECOND)}})),
    )
    answers = [site.ask("locked").status_code for _ in range(20)]
    assert set(answers) == {200}


def test_a_model_without_its_key_says_that_it_starts(site: Site, locked: str) -> None:
    site.apply("locked")
    site.status("locked", "Ready", ready=1, endpoint=locked, engineKey=key_id(FIRST))
    until(lambda: "locked" in site.listed())
    assert site.code("locked") == (503, "model_not_ready")
    write(site, locked=FIRST)
    until(lambda: site.code("locked")[0] == 200)
