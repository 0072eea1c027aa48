"""Doors: an admission and a key for it, with Redis and in the time without."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admission import Admission, Grant
from cloudach_gateway.admission.api_keys import parse_api_key
from cloudach_gateway.admission.grants import Ask, Settlement
from cloudach_gateway.admission.key_records import Caller, KeyLimits
from cloudach_gateway.admission.rules import Rules
from cloudach_gateway.admission.script_calls import Encoder
from cloudach_gateway.admission.scripts import LIMITER
from cloudach_gateway.errors import LimitState, RateLimited
from cloudach_gateway.store import layout
from cloudach_gateway.store.embedded import EmbeddedValkey

_numbers = itertools.count()


@dataclass
class Door:
    admission: Admission
    key: keys.NewKey
    now: float = 0.0  # where `passes` is used

    def passes(self, seconds: float) -> None:
        """The time that both limiters go by; it stands still otherwise."""
        self.now += seconds
        self.admission.encoder.clock = str(round(self.now * 1_000_000))
        self.admission._local._clock = lambda: self.now

    async def ask(
        self,
        body: str | None = None,
        tokens: int = 1,
        retry: bool = False,
        models: tuple[str, ...] = ("m",),
        guided: bool = False,
    ) -> Grant:
        number = next(_numbers)
        return await self.admission.admit(
            self.key.api_key,
            request_id=f"r{number}",
            models=models,
            tokens=tokens,
            fingerprint=f"body {number}" if body is None else body,
            retry=retry,
            guided=guided,
        )

    async def wait_for(self, body: str, tokens: int = 1, kind: str | None = None) -> float:
        """Seconds that a request, which must be refused, is told to wait."""
        with pytest.raises(RateLimited) as refused:
            await self.ask(body, tokens)
        assert kind is None or refused.value.type == kind
        assert refused.value.retry_after_s is not None
        return refused.value.retry_after_s

    async def settle(self, grant: Grant, used: int = 0, outcome: str = "finished") -> None:
        await self.admission.settle(grant, prompt_tokens=used, completion_tokens=0, outcome=outcome)


@dataclass
class Scripted:
    """The scripts alone, at times that the test names (us)."""

    client: redis.Redis
    key: keys.NewKey
    window: int = 10_000_000
    grace: int = 1_000_000
    now: int = 1_700_000_000_000_000
    lease_ttl: int = 3600_000_000
    leases: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encoder = Encoder(Rules(self.window / 1e6, self.grace / 1e6, self.lease_ttl / 1e6))
        self.presented = parse_api_key(self.key.api_key)

    def ask(self, name: str, print: str | None = None, cost: int = 1, retry: bool = False) -> list[Any]:
        """admit.lua's reply: status, us to wait, …"""
        self.encoder.clock = str(self.now)
        ask = Ask(name, ("m",), cost, print or f"print of {name}", retry, "m", "completions")
        names, args = self.encoder.admit(self.presented, ask)
        reply: list[Any] = self.client.eval(LIMITER.admit.source, len(names), *names, *args)
        self.leases[name] = reply[5]
        return reply

    def settle(
        self, name: str, used: int = 0, completion: int = 0, cached: int = 0, day: str = "20260101", once: bool = True
    ) -> None:
        """once: it was not settled before."""
        self.encoder.clock = str(self.now)
        record = self.key.record
        done = Settlement(
            record.tenant, record.id, name, self.leases[name], day, used, completion, cached, "finished",
            "m", "completions", ttft_ms=7, duration_ms=1234,
        )  # fmt: skip
        names, args = self.encoder.settle(done)
        assert self.client.eval(LIMITER.settle.source, len(names), *names, *args) == once

    def renew(self, *running: tuple[str, int, int, int], bury: int = 100, day: str = "20260101") -> list[str]:
        """`running`: name, and tokens of prompt, answer and cache so far. Returns the names that were declared lost."""
        self.encoder.clock = str(self.now)
        record = self.key.record
        grants = [
            Grant(Caller(record, LimitState()), name, 0, self.leases[name], model="m", route="completions",
                  progress=lambda progress=progress: progress)  # type: ignore[misc]
            for name, *progress in running
        ]  # fmt: skip
        names, args = self.encoder.renew(record.tenant, record.id, day, grants, most_lost=bury)
        lost: list[str] = self.client.eval(LIMITER.renew.source, len(names), *names, *args)
        return lost

    def records(self) -> list[dict[str, str]]:
        return [fields for _, fields in self.client.xrange(layout.records(self.key.record.tenant))]


OpenDoor = Callable[..., Awaitable[Door]]


@pytest.fixture(params=["redis", "local"])
async def open_door(request: pytest.FixtureRequest, start_admission, make_key, tmp_path: Path) -> OpenDoor:
    """The same contract on both: with Redis, and without it for a key that was seen. The door's clock is the test's."""

    async def with_redis(
        requests: int | None = None,
        tokens: int | None = None,
        concurrency: int | None = None,
        most_guided: int | None = 32,
        **rest: object,
    ) -> Door:
        admission = await start_admission(window_s=1.0, guided_requests=most_guided)
        door = Door(admission, make_key(requests, tokens, concurrency, **rest), time.time())
        door.passes(0)
        return door

    async def without_redis(
        requests: int | None = None,
        tokens: int | None = None,
        concurrency: int | None = None,
        most_guided: int | None = 32,
        **rest: object,
    ) -> Door:
        with EmbeddedValkey(tmp_path / "valkey") as valkey:
            with KeyStore(valkey.url) as store:
                limits = KeyLimits(requests, tokens, concurrency)
                key = keys.create(store, tenant="acme", limits=limits, **rest)  # type: ignore[arg-type]
            admission = await start_admission(valkey.url, window_s=1.0, guided_requests=most_guided)
            door = Door(admission, key, time.time())
            door.passes(0)
            await door.admission.authenticate(key.api_key)
        return door

    return with_redis if request.param == "redis" else without_redis
