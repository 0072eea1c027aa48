"""Models that sleep, and the tests as the controller that wakes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.gateway_models.conftest import SLEEPS, Site
from tests.support.waiting import until

WAKE, USED = "wakeRequestedAt", "lastRequestAt"


def put_to_sleep(site: Site, name: str) -> None:
    site.apply(name, **SLEEPS)
    site.status(name, "Sleeping")
    until(lambda: name in site.listed() and site.metric("cloudach_models", state="asleep") == 1)


def wake(site: Site, name: str) -> None:
    """As a controller: once it is wanted, through the states that lie between."""
    until(lambda: WAKE in site.told(name))
    site.status(name, "Deploying")
    site.status(name, "Ready", ready=1)


@contextmanager
def stream(site: Site, name: str, *, key: str | None = None, tokens: int = 5) -> Iterator[httpx.Response]:
    with httpx.stream(
        "POST",
        f"{site.gateway.base_url}/chat/completions",
        headers={"authorization": f"Bearer {key or site.key}"},
        json={"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": tokens, "stream": True},
        timeout=150,
    ) as answer:
        yield answer
