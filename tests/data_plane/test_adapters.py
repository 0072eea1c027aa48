"""LoRA adapters of the configuration file: for clients, keys, records and a failover models of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from tests.support.processes import BIN
from tests.support.stack import Gateway, Simulator, create_key, start_gateway, start_sim
from tests.support.waiting import until

MESSAGES: Any = [{"role": "user", "content": "Tell me of the sea"}]


@dataclass
class Site:
    sims: list[Simulator]
    gateway: Gateway
    clients: ExitStack

    def client(self, **key: Any) -> openai.OpenAI:
        sdk = openai.OpenAI(base_url=self.gateway.base_url, api_key=create_key(self.gateway, **key), max_retries=0)
        return self.clients.enter_context(sdk)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Engines as vLLM's --lora-modules sets them up: `sql` is called as the platform calls it, `chat` is not."""
    model = {
        "id": "llama",
        "aliases": ["small"],
        "upstream_model": "m",
        "adapters": [{"name": "sql"}, {"name": "chat", "id": "Support", "upstream_model": "own-name"}],
    }
    with ExitStack() as stack:
        engine = {"rate": 100, "model": "m", "adapter": ["m:sql", "own-name"]}
        sims = [stack.enter_context(start_sim(**engine)) for _ in range(2)]
        config = {"models": [model | {"upstreams": [sim.url for sim in sims]}], "failover": {"spread_s": 0.05}}
        yield Site(sims, stack.enter_context(start_gateway(config)), stack)


@pytest.fixture(autouse=True)
def as_new(site: Site) -> None:
    for sim in site.sims:
        sim.reset()


def said(client: openai.OpenAI, model: str, **fields: Any) -> tuple[str, str]:
    """The model that the chunks name, and the text."""
    stream = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=30, temperature=0, stream=True, extra_body=fields or None
    )
    chunks = list(stream)
    (named,) = {chunk.model for chunk in chunks}
    return named, "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_each_name_reaches_its_adapter(site: Site) -> None:
    client = site.client()
    names = ("llama", "small", "llama:sql", "small:sql", "Support", "llama:chat", "small:chat")
    answers = dict(said(client, name) for name in names)
    assert tuple(answers) == names, "answers carry the name that was asked for"
    assert len(set(answers.values())) == 3
    assert answers["llama"] == answers["small"]
    assert answers["llama:sql"] == answers["small:sql"]
    assert answers["Support"] == answers["llama:chat"] == answers["small:chat"]
    with pytest.raises(openai.NotFoundError) as unknown:
        said(client, "llama:other")
    assert unknown.value.code == "model_not_found"


def test_listed_with_their_parent(site: Site) -> None:
    client = site.client()
    listed = {card.id: card.model_dump() for card in client.models.list()}
    assert set(listed) == {"llama", "small", "llama:sql", "small:sql", "Support", "llama:chat", "small:chat"}
    assert {name: card.get("parent") for name, card in listed.items() if name in ("llama", "small")} == {
        "llama": None,
        "small": None,
    }
    assert (listed["small:sql"]["root"], listed["small:sql"]["parent"]) == ("llama:sql", "llama")
    one = client.models.retrieve("llama:chat").model_dump()
    assert (one["root"], one["parent"]) == ("Support", "llama")


@pytest.mark.parametrize(
    ("models", "may", "may_not"),
    [
        (["llama"], ["llama", "small"], ["llama:sql", "Support"]),
        (["llama:sql"], ["llama:sql", "small:sql"], ["llama", "Support"]),
    ],
)
def test_a_key_names_models_and_adapters_apart(
    site: Site, models: list[str], may: list[str], may_not: list[str]
) -> None:
    client = site.client(models=models)
    listed = {card.id for card in client.models.list()}
    for name in may:
        assert said(client, name)[0] == name
        assert name in listed
    for name in may_not:
        with pytest.raises((openai.NotFoundError, openai.PermissionDeniedError)):
            said(client, name)
        assert name not in listed


def test_a_broken_stream_goes_on_under_the_same_adapter(site: Site) -> None:
    client = site.client()
    undisturbed = said(client, "llama:sql")
    site.sims[0].arm("abort@7")
    # Some of them have their turn with the engine that breaks.
    assert [said(client, "llama:sql") for _ in range(4)] == [undisturbed] * 4
    until(lambda: [entry for entry in site.gateway.requests if entry.get("failovers")])
    (entry,) = [entry for entry in site.gateway.requests if entry.get("failovers")]
    assert entry["model"] == "llama:sql"
    continued = [request for request in site.sims[1].requests() if request["path"] == "/v1/completions"]
    assert [request["model"] for request in continued] == ["m:sql"]


def test_the_bill_names_the_adapter(site: Site) -> None:
    client = site.client(tenant="billed")
    for name in ("llama", "llama:sql", "small:chat"):
        said(client, name)

    def records() -> list[dict[str, Any]]:
        command = [BIN / "cloudach", "usage", "records", "--tenant", "billed", "--config", site.gateway.config_file]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    until(lambda: len(records()) == 3)
    assert [record["model"] for record in records()] == ["llama", "llama:sql", "Support"]
