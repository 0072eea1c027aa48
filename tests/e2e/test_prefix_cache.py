"""Real vLLM tells how much of a prompt its prefix cache held: a tenant finds its own prompts, nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import openai
import pytest

from tests.support.inference import Inference
from tests.support.stack import Gateway, create_key, start_gateway

from .conftest import MODEL

pytestmark = pytest.mark.timeout(900)  # the first test waits for the engine's start

_secrets = count(100)

Client = Callable[[str, str], openai.OpenAI]


@pytest.fixture(scope="module")
def gateway(vllm: Inference) -> Iterator[Gateway]:
    engine = {"upstreams": [vllm.base_urls[MODEL]], "upstream_model": MODEL, "api_key": vllm.api_key}
    models = [{"id": MODEL, **engine}, *({"id": of, "cache_salt": of, **engine} for of in ("key", "none"))]
    with start_gateway({"models": models}) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[Client]:
    """By tenant and name of the key."""
    made: dict[tuple[str, str], openai.OpenAI] = {}

    def client(tenant: str, key: str = "first") -> openai.OpenAI:
        if (tenant, key) not in made:
            secret = create_key(gateway, tenant=tenant, name=key)
            made[tenant, key] = openai.OpenAI(base_url=gateway.base_url, api_key=secret, max_retries=0, timeout=300)
        return made[tenant, key]

    yield client
    for each in made.values():
        each.close()


def prompt() -> str:
    """Some 400 tokens that no other test has asked."""
    return f"The combination of safe number {next(_secrets)} is as follows. " + "Turn left, then right. " * 60


def cached(client: openai.OpenAI, text: str, model: str = MODEL, *, chat: bool = False) -> int:
    """How many of the prompt's tokens the engine had in its cache, as it says itself."""
    if chat:
        usage = client.chat.completions.create(
            model=model, max_tokens=1, messages=[{"role": "user", "content": text}]
        ).usage
    else:
        usage = client.completions.create(model=model, max_tokens=1, prompt=text).usage
    assert usage is not None
    assert usage.prompt_tokens > 300
    assert usage.prompt_tokens_details is not None
    return usage.prompt_tokens_details.cached_tokens or 0


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completion"])
def test_tenants_share_no_prefix_cache(client: Client, chat: bool) -> None:
    text = prompt()
    assert cached(client("a"), text, chat=chat) == 0
    assert cached(client("a"), text, chat=chat) >= 128
    assert cached(client("a", "second"), text, chat=chat) >= 128, "a tenant's keys share it"
    assert cached(client("b"), text, chat=chat) == 0, "another tenant could tell what this one has asked"
    assert cached(client("b"), text, chat=chat) >= 128


def test_a_key_of_its_own(client: Client) -> None:
    text = prompt()
    assert cached(client("a"), text, "key") == 0
    assert cached(client("a"), text, "key") >= 128
    assert cached(client("a", "second"), text, "key") == 0


def test_all_callers_share_it_where_the_model_says_so(client: Client) -> None:
    text = prompt()
    assert cached(client("a"), text, "none") == 0
    assert cached(client("b"), text, "none") >= 128
