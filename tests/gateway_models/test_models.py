"""Models come, change and go: what clients of the gateway see of it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import openai
import pytest

from tests.gateway_models.conftest import NAMESPACE, Site, settings
from tests.support.ports import free_port
from tests.support.processes import ServerFailed
from tests.support.stack import create_key, start_gateway
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)  # the first test waits for an API server


def test_a_new_model_is_served_without_a_restart(site: Site) -> None:
    assert site.code("llama") == (404, "model_not_found")
    site.ready("llama", id="meta/Llama-3", aliases=["llama"], maxModelLen=4096)
    with openai.OpenAI(base_url=site.gateway.base_url, api_key=site.key, max_retries=0) as client:
        for name in ("meta/Llama-3", "llama"):
            stream = client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": "Hi"}], max_tokens=8, stream=True
            )
            chunks = list(stream)
            assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) == 8
            assert {chunk.model for chunk in chunks} == {name}
        assert site.listed() == {"meta/Llama-3", "llama"}
        entry = client.models.retrieve("llama")
    assert entry.model_dump()["root"] == "meta/Llama-3"
    assert entry.model_dump()["max_model_len"] == 4096
    assert site.sim.requests()[0]["model"] == "sim", "the name that the engine answers to"


def test_a_deleted_model_is_gone_and_its_streams_go_on(site: Site) -> None:
    site.ready("llama")
    site.sim.configure(rate=20)
    with httpx.stream(
        "POST",
        f"{site.gateway.base_url}/chat/completions",
        headers={"authorization": f"Bearer {site.key}"},
        json={"model": "llama", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 60, "stream": True},
        timeout=30,
    ) as stream:
        lines = stream.iter_lines()
        next(lines)
        site.delete("llama")
        until(lambda: site.code("llama") == (404, "model_not_found"))
        rest = list(lines)
    assert [line for line in rest if line][-1] == "data: [DONE]"
    assert site.listed() == set()
    assert [line["model"] for line in site.logged("model gone")][-1] == "llama"


def test_a_model_that_drains_before_it_is_deleted_takes_no_new_requests(site: Site) -> None:
    site.ready("llama")
    hold = json.dumps({"metadata": {"finalizers": ["cloudach.dev/drain"]}})
    site.kubectl("-n", NAMESPACE, "patch", "model", "llama", "--type=merge", "-p", hold)
    site.kubectl("-n", NAMESPACE, "delete", "model", "llama", "--wait=false")
    until(lambda: site.code("llama") == (404, "model_not_found"))
    assert site.metric("cloudach_models", state="deleting") == 1
    site.kubectl(
        "-n",
        NAMESPACE,
        "patch",
        "model",
        "llama",
        "--type=json",
        "-p",
        '[{"op":"remove","path":"/metadata/finalizers"}]',
    )


def test_a_model_that_is_not_ready(site: Site) -> None:
    site.apply("llama")
    until(lambda: site.code("llama") == (503, "model_not_ready"))
    site.status("llama", "Deploying")
    answer = site.ask("llama")
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert site.listed() == {"llama"}
    site.status("llama", "Failed")
    until(lambda: site.ask("llama").headers.get("x-should-retry") == "false")
    assert site.metric("cloudach_models", state="stuck") == 1
    site.status("llama", "Ready", ready=1)
    until(lambda: site.code("llama")[0] == 200)
    assert site.metric("cloudach_models", state="ready") == 1


def test_a_model_that_is_switched_off_is_not_woken(site: Site) -> None:
    site.apply("llama", replicas=0)
    site.status("llama", "Sleeping")
    until(lambda: site.ask("llama").headers.get("x-should-retry") == "false")
    assert "switched off" in site.ask("llama").json()["error"]["message"]
    assert "wakeRequestedAt" not in site.told("llama")


def test_nothing_is_said_without_a_key(site: Site) -> None:
    site.apply("llama")
    until(lambda: "llama" in site.listed())
    assert site.ask("llama", key="sk-cld-tests-aaaaaaaaaa-" + "x" * 40).status_code == 401


def test_the_older_model_keeps_an_alias(site: Site) -> None:
    site.ready("first", aliases=["chat"])
    site.sim.configure(rate=200)
    site.apply("second", aliases=["chat", "mine"])
    site.status("second", "Ready", ready=1)
    until(lambda: site.code("mine")[0] == 200)
    entry = httpx.get(f"{site.gateway.base_url}/models/chat", headers={"authorization": f"Bearer {site.key}"}).json()
    assert entry["root"] == "first"
    (line,) = site.logged("a Model is not served as it says")
    assert (line["resource"], line["level"]) == ("serving/second", "error")
    assert "'chat' belongs to the Model serving/first" in line["cause"]
    site.delete("first")
    until(lambda: site.code("chat")[0] == 200)
    entry = httpx.get(f"{site.gateway.base_url}/models/chat", headers={"authorization": f"Bearer {site.key}"}).json()
    assert entry["root"] == "second"


def test_other_namespaces_are_not_looked_at(site: Site) -> None:
    site.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}})
    metadata = {"name": "foreign", "namespace": "elsewhere"}
    spec = {"source": {"simulator": {}}}
    site.kubectl.apply({"apiVersion": "cloudach.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": spec})
    site.ready("llama")
    assert site.code("foreign") == (404, "model_not_found")


def test_every_process_of_a_gateway_follows(site: Site, kubeconfig: Path) -> None:
    port = free_port()
    config = settings(kubeconfig, port)
    config["listen"]["processes"] = 2
    with start_gateway(config) as gateway:
        several = Site(site.cluster, site.sim, gateway, create_key(gateway), port)
        site.ready("llama")
        until(lambda: all(several.code("llama")[0] == 200 for _ in range(20)))
        until(lambda: several.metric("cloudach_models", state="ready") == 1)
        # Who answers first is not all of them.
        until(lambda: len([line for line in several.logged("model new") if line["model"] == "llama"]) == 2)
        until(lambda: several.metric("cloudach_models_watched") == 1)
        site.delete("llama")
        until(lambda: all(several.code("llama") == (404, "model_not_found") for _ in range(20)))


def test_a_gateway_says_why_it_cannot_start(site: Site, tmp_path: Path) -> None:
    config = settings(tmp_path / "missing", 0)
    with pytest.raises(ServerFailed, match=r"kubernetes\.kubeconfig: cannot read"):
        start_gateway(config)
