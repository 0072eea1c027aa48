"""The embedded Valkey: private, lasting, alone on its folder, and gone with its starter."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from cloudach_gateway.settings import Redis
from cloudach_gateway.store.embedded import EmbeddedError, EmbeddedValkey, redis_server, running_url


def test_it_keeps_its_data(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey, redis.Redis.from_url(valkey.url) as client:
        client.set("a", "1")
    assert running_url(tmp_path) is None
    with EmbeddedValkey(tmp_path) as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.get("a") == b"1"


def test_it_is_private(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "data") as valkey:
        port = int(valkey.url.rsplit(":", 1)[1].split("/")[0])
        with redis.Redis(port=port) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        for name in ("url", "valkey.conf"):
            assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
        password = valkey.url.split(":")[2].split("@")[0]
        assert valkey.pid is not None
        assert password.encode() not in Path(f"/proc/{valkey.pid}/cmdline").read_bytes()
        listening = subprocess.run(["cat", f"/proc/{valkey.pid}/net/tcp"], capture_output=True, text=True, check=True)
        assert f"0100007F:{port:04X}" in listening.stdout  # 127.0.0.1
        assert f"00000000:{port:04X}" not in listening.stdout


def test_a_folder_that_is_there_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    with EmbeddedValkey(folder) as valkey, redis.Redis.from_url(valkey.url) as client:
        client.set("a", "1")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" \\c\nd'
    with EmbeddedValkey(folder) as valkey, redis.Redis.from_url(valkey.url) as client:
        client.set("a", "1")
        assert (folder / "appendonlydir").is_dir()


def test_one_folder_has_one_server(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as first:
        assert running_url(tmp_path) == first.url
        with pytest.raises(EmbeddedError, match="another Valkey already runs"):
            EmbeddedValkey(tmp_path, lock_wait_s=0.1).start()
        assert running_url(tmp_path) == first.url


def test_it_dies_with_its_starter(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from cloudach_gateway.store.embedded import EmbeddedValkey\n"
        "valkey = EmbeddedValkey(Path(sys.argv[1])); valkey.start(); print(valkey.pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    url = running_url(tmp_path)
    assert url is not None
    with redis.Redis.from_url(url) as client:
        client.set("kept", "1")
    os.kill(starter.pid, signal.SIGKILL)
    starter.communicate()
    # The next start waits until the old server is really gone, and has its data.
    with EmbeddedValkey(tmp_path, lock_wait_s=30) as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.get("kept") == b"1"
    deadline = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # also between opening and reading it
        return False


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match="cannot use"):
        EmbeddedValkey(tmp_path / "file").start()


def test_broken_data_says_why(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey, redis.Redis.from_url(valkey.url) as client:
        client.set("a", "1")
    (manifest,) = (tmp_path / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense")
    with pytest.raises(EmbeddedError, match=r"does not start[\s\S]*AOF"):
        EmbeddedValkey(tmp_path).start()


def test_a_configured_redis_is_used_as_it_is(tmp_path: Path) -> None:
    with redis_server(Redis(url="redis://elsewhere:1", data_dir=tmp_path / "unused")) as url:
        assert url == "redis://elsewhere:1"
    assert not (tmp_path / "unused").exists()
