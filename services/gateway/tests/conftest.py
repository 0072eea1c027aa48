"""A real Valkey for the whole run; each test has a tenant of its own."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
from cloudach_gateway.admin import keys
from cloudach_gateway.admin.key_store import KeyStore
from cloudach_gateway.admission import Admission
from cloudach_gateway.admission.key_records import KeyLimits
from cloudach_gateway.settings import Limits, Redis
from cloudach_gateway.store.embedded import EmbeddedValkey

from tests.support.valkey import Valkey

_numbers = itertools.count()

MakeKey = Callable[..., keys.NewKey]
StartAdmission = Callable[..., Awaitable[Admission]]


@pytest.fixture(autouse=True)
def _one_day() -> None:
    """What is booked on a day is looked for on the same one: no test begins right before midnight, UTC."""
    left_s = 86_400 - time.time() % 86_400
    if left_s < 30:
        time.sleep(left_s + 0.1)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey.url


@pytest.fixture
def key_store(valkey_url: str) -> Iterator[KeyStore]:
    with KeyStore(valkey_url) as store:
        yield store


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_url, decode_responses=True) as connected:
        yield connected


@pytest.fixture
def tenant() -> str:
    return f"t{next(_numbers)}"


@pytest.fixture
def make_key(key_store: KeyStore, tenant: str) -> MakeKey:
    def make(requests: int | None = None, tokens: int | None = None, concurrency: int | None = None, **rest: object):
        return keys.create(key_store, tenant=tenant, limits=KeyLimits(requests, tokens, concurrency), **rest)  # type: ignore[arg-type]

    return make


@pytest.fixture
async def start_admission(valkey_url: str) -> AsyncIterator[StartAdmission]:
    """Connected admissions with short windows; closed after the test."""
    async with AsyncExitStack() as stack:

        async def start(url: str = valkey_url, *, timeout_s: float = 10.0, **limits: float) -> Admission:
            admission = Admission(
                url,
                Redis(timeout_s=timeout_s, probe_every_s=0.1, data_dir=Path("unused")),
                Limits(**{"window_s": 2.0, "promise_grace_s": 2.0, **limits}),  # type: ignore[arg-type]
            )
            await admission.start()
            stack.push_async_callback(admission.close, 0.5)
            return admission

        yield start
