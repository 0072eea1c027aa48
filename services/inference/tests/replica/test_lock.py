"""What an engine shows to whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cloudach_inference.replica.lock import KEY_VARIABLE, Keys, Lock, Message, Receive, Send


async def application(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})


async def ask(
    lock: Lock, method: str, path: str, *authorization: str, root_path: str = "", kind: str = "http"
) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nobody reads")

    headers = [(b"authorization", value.encode("latin-1")) for value in authorization]
    scope = {"type": kind, "method": method, "path": root_path + path, "root_path": root_path, "headers": headers}
    await lock(scope, receive, send)
    return sent


async def status(lock: Lock, method: str, path: str, *authorization: str, root_path: str = "") -> int:
    found: int = (await ask(lock, method, path, *authorization, root_path=root_path))[0]["status"]
    return found


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    return Lock(application, Keys("secret\n", tmp_path / "none"), more=("/sim/",))


GOOD = "Bearer secret"
USED = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/detokenize"),
    ("GET", "/v1/models"),
    ("GET", "/metrics"),
    ("POST", "/sim/reset"),
]
CLOSED = [
    ("POST", "/invocations"),
    ("POST", "/tokenize"),
    ("POST", "/scale_elastic_ep"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/pooling"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/version"),
    ("GET", "/ping"),
    ("GET", "/v1/chat/completions"),
    ("OPTIONS", "/v1/chat/completions"),
    ("POST", "/v1/chat/completions/"),
    ("POST", "//v1/chat/completions"),
    ("POST", "/health"),
    ("GET", "/health/../metrics"),
    ("GET", "/sim"),
    ("GET", ""),
]


@pytest.mark.parametrize("root_path", ["", "/my-model"])
@pytest.mark.parametrize(("method", "path"), USED)
async def test_what_the_gateway_uses_wants_the_key(lock: Lock, method: str, path: str, root_path: str) -> None:
    assert await status(lock, method, path, GOOD, root_path=root_path) == 299
    for wrong in ((), ("Bearer wrong",), ("Basic secret",), ("secret",), ("Bearer ",), (GOOD, GOOD)):
        assert await status(lock, method, path, *wrong, root_path=root_path) == 401


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_all_else_is_not_there(lock: Lock, method: str, path: str) -> None:
    assert await status(lock, method, path) == 401
    assert await status(lock, method, path, GOOD) == 404


async def test_health_needs_no_key(lock: Lock) -> None:
    assert await status(lock, "GET", "/health") == 299
    assert await status(lock, "HEAD", "/health") == 299


async def test_no_websocket_is_opened(lock: Lock) -> None:
    assert await ask(lock, "GET", "/v1/realtime", GOOD, kind="websocket") == [{"type": "websocket.close", "code": 1008}]


async def test_an_engine_without_a_key_serves_the_same_paths_to_everyone(tmp_path: Path) -> None:
    unlocked = Lock(application, Keys(None, tmp_path / "none"))
    assert await status(unlocked, "POST", "/v1/completions") == 299
    assert await status(unlocked, "POST", "/invocations") == 404


async def test_keys_follow_their_folder(tmp_path: Path) -> None:
    now = 0.0
    (tmp_path / "key").write_text("one\n")
    lock = Lock(application, Keys("zero", tmp_path, clock=lambda: now))

    async def taken() -> list[str]:
        keys = ("zero", "one", "two")
        return [key for key in keys if await status(lock, "GET", "/v1/models", f"Bearer {key}") == 299]

    assert await taken() == ["one"]
    (tmp_path / "key").write_text("two")
    (tmp_path / "also").write_text("one")
    assert await taken() == ["one"], "not looked at for each request"
    now += 2
    assert await taken() == ["one", "two"]
    (tmp_path / "also").unlink()
    now += 2
    assert await taken() == ["two"]
    (tmp_path / "key").unlink()
    now += 2
    assert await taken() == ["zero"], "with an empty folder it is the key that the pod began with"


async def test_a_folder_without_any_key_is_a_lock_that_none_opens(tmp_path: Path) -> None:
    lock = Lock(application, Keys(None, tmp_path))
    assert await status(lock, "GET", "/v1/models", "Bearer ") == 401
    assert await status(lock, "GET", "/v1/models") == 401


def test_the_key_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret\n")
    for keys in (Keys.taken_from_environment(), Keys.taken_from_environment()):
        assert keys.admit(b"Bearer secret")
        assert not keys.admit(b"Bearer other")
    assert KEY_VARIABLE not in os.environ


def test_a_key_that_no_header_can_hold_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"U\+000A"):
        Keys("a\nb")
