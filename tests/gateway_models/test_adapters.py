"""LoRA adapters of a Model come, load, sleep and go: what clients of the gateway see of it."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tests.gateway_models.conftest import NAMESPACE, Site
from tests.gateway_models.waking import put_to_sleep, stream, wake
from tests.support.stack import create_key
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)  # the first test waits for an API server

SIM: dict[str, Any] = {"simulator": {}}


def lora(*names: str, **more: Any) -> dict[str, Any]:
    return {"adapters": [{"name": name, "source": SIM, **more} for name in names]}


def patch(site: Site, name: str, **spec: Any) -> None:
    site.kubectl("-n", NAMESPACE, "patch", "model", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def test_an_adapter_is_served_when_every_replica_has_it(site: Site) -> None:
    site.ready("llama", maxModelLen=4096)
    assert site.code("llama:sql") == (404, "model_not_found")
    patch(site, "llama", lora=lora("sql"))
    until(lambda: site.code("llama:sql") == (503, "model_not_ready"))
    assert site.code("llama")[0] == 200
    site.status("llama", "Ready", ready=1, adapters=["sql"])
    until(lambda: site.code("llama:sql")[0] == 200)
    answer = site.ask("llama:sql").json()
    assert answer["model"] == "llama:sql"
    assert site.sim.requests()[0]["model"] == "sim:sql"
    assert answer["choices"] != site.ask("llama").json()["choices"]
    assert site.listed() == {"llama", "llama:sql"}
    patch(site, "llama", lora=None)
    until(lambda: site.code("llama:sql") == (404, "model_not_found"))
    assert site.code("llama")[0] == 200
    assert site.listed() == {"llama"}


def test_an_adapter_with_an_id_of_its_own(site: Site) -> None:
    site.ready("llama", lora=lora("sql", id="Org/Sql"))
    site.status("llama", "Ready", ready=1, adapters=["sql"])
    until(lambda: site.code("Org/Sql")[0] == 200)
    assert site.code("llama:sql")[0] == 200
    only = create_key(site.gateway, models=["Org/Sql"])
    assert site.ask("llama:sql", key=only).status_code == 200
    assert site.ask("llama", key=only).json()["error"]["code"] == "model_not_allowed"


def test_one_that_cannot_be_loaded_needs_an_operator(site: Site) -> None:
    site.ready("llama", lora=lora("sql"))
    bad = {"type": "Degraded", "status": "True", "reason": "AdapterNotLoaded", "message": "LoRA adapter 'sql'"}
    now = "2026-11-23T06:47:00Z"
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "ReplicasReady",
        "message": "1 of 1",
        "lastTransitionTime": now,
    }
    site.status("llama", "Degraded", ready=1, conditions=[ready, {**bad, "lastTransitionTime": now}])
    until(lambda: site.ask("llama:sql").headers.get("x-should-retry") == "false")
    assert site.ask("llama:sql").status_code == 503
    assert site.code("llama")[0] == 200


def test_a_request_for_an_adapter_wakes_its_model(site: Site) -> None:
    put_to_sleep(site, "llama")
    patch(site, "llama", lora=lora("sql"))
    site.status("llama", "Sleeping", adapters=["sql"])
    until(lambda: "llama:sql" in site.listed())
    waking = threading.Thread(target=wake, args=(site, "llama"))
    with stream(site, "llama:sql") as answer:
        waking.start()
        lines = [line for line in answer.iter_lines() if line]
    waking.join()
    assert lines[0] == ": keep-alive"
    assert lines[-1] == "data: [DONE]"
    assert not any('"error"' in line for line in lines)
    assert site.sim.requests()[0]["model"] == "sim:sql"
