"""Request bodies before and behind the key: nothing large is read for a stranger, and nobody's body is too much."""

from __future__ import annotations

import codecs
import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis
from cloudach_gateway.store.embedded import running_url

from tests.data_plane.conftest import PATIENT, Stack, chat
from tests.support.stack import create_key, served_by, start_gateway
from tests.support.wire import INVALID, error_of

UNKNOWN = "sk-cld-tests-aaaaaaaaaa-" + "a" * 40
LARGE = 1_000_000
SMALL = json.dumps(chat(max_tokens=1)).encode()


@pytest.fixture(scope="module")
def narrow(stack: Stack) -> Iterator[Stack]:
    """The same engine behind a gateway that has room for a few bodies at a time."""
    config = {
        "models": [served_by(stack.sim, max_model_len=32768)],
        "timeouts": PATIENT,
        "max_body_bytes": LARGE,
        "bodies": {"unfinished_bytes": 4 * LARGE, "max_values": 20_000, "wait_s": 1.0},
    }
    with start_gateway(config) as gateway:
        yield Stack(stack.sim, gateway, create_key(gateway))


def head(stack: Stack, key: str, framing: str) -> bytes:
    host = urlsplit(stack.gateway.url).netloc
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\n{framing}\r\n\r\n"
    ).encode()


def connected(stack: Stack) -> socket.socket:
    place = urlsplit(stack.gateway.url)
    return socket.create_connection((place.hostname or "", place.port or 0), timeout=20)


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of an answer that says its length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    top, _, body = data.partition(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in top.split(b"\r\n")[1:])
    while len(body) < int(lines[b"content-length"]):
        body += connection.recv(65536)
    return int(top.split()[1]), body


@pytest.mark.parametrize("framing", [f"content-length: {LARGE // 2}", "transfer-encoding: chunked"])
@pytest.mark.parametrize("key", ["nonsense", "sk-cld-x", UNKNOWN])
def test_a_stranger_is_refused_before_the_body_comes(stack: Stack, key: str, framing: str) -> None:
    with connected(stack) as connection:
        connection.sendall(head(stack, key, framing))
        status, body = answer_of(connection)
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


def test_a_strangers_body_is_not_asked_for(stack: Stack) -> None:
    """Expect: 100-continue, as curl sends it, is answered with the refusal."""
    with connected(stack) as connection:
        connection.sendall(head(stack, UNKNOWN, f"content-length: {LARGE // 2}\r\nexpect: 100-continue"))
        assert answer_of(connection)[0] == 401


def test_a_refused_body_that_comes_all_the_same_is_thrown_away(stack: Stack) -> None:
    with connected(stack) as connection:
        connection.sendall(head(stack, UNKNOWN, f"content-length: {LARGE // 2}"))
        assert answer_of(connection)[0] == 401
        connection.sendall(b"x" * (LARGE // 2))
        body = json.dumps(chat(max_tokens=1)).encode()
        connection.sendall(head(stack, stack.key, f"content-length: {len(body)}") + body)
        assert answer_of(connection)[0] == 200


def resident(process: int) -> int:
    """Bytes of memory that all processes of a gateway have."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (process, *map(int, children)))
    return pages * 4096


def test_unfinished_bodies_take_bounded_memory(narrow: Stack) -> None:
    before = resident(narrow.gateway.process.pid)
    with ExitStack() as opened:
        for _ in range(200):
            connection = opened.enter_context(connected(narrow))
            connection.sendall(head(narrow, narrow.key, f"content-length: {LARGE}"))
            connection.setblocking(False)
            sent, deadline = 0, time.monotonic() + 0.05  # what is not taken within that is not taken
            while sent < LARGE - 10 and time.monotonic() < deadline:
                try:
                    sent += connection.send(b"x" * min(65536, LARGE - 10 - sent))
                except BlockingIOError:
                    time.sleep(0.001)
        narrow.still_serves()
        grown = resident(narrow.gateway.process.pid) - before
        assert grown < 120_000_000, f"{grown} bytes for 200 bodies of {LARGE} that are not there yet"


def test_one_tenants_unfinished_bodies_leave_room_for_the_others(narrow: Stack) -> None:
    with ExitStack() as opened:
        for _ in range(8):  # four of them would fill the room, and wait for each other
            connection = opened.enter_context(connected(narrow))
            connection.sendall(head(narrow, narrow.key, f"content-length: {LARGE}") + b"{")
        deadline = time.monotonic() + 20
        while (refused := large(narrow)).status_code == 200:  # the gateway has not read the heads of all yet
            assert time.monotonic() < deadline, "the room is never full"
        error_of(refused, 503, "server_error", "server_is_overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        other = create_key(narrow.gateway, tenant="others")
        assert large(narrow, key=other).status_code == 200
        narrow.still_serves()
    deadline = time.monotonic() + 20
    while large(narrow).status_code != 200:
        assert time.monotonic() < deadline, "the room is free again once they have gone"


def large(stack: Stack, **options: object) -> httpx.Response:
    return stack.post(json=chat(max_tokens=1, metadata={"note": "x" * (LARGE // 2)}), **options)  # type: ignore[arg-type]


def test_a_large_body_reaches_the_engine(narrow: Stack) -> None:
    answer = large(narrow)
    assert answer.status_code == 200
    assert narrow.sim.requests()[0]["id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "hostile",
    [
        "[" + "{}," * 30_000 + "{}]",
        '["' + '","' * 30_000 + '"]',
        "[" + "1," * 30_000 + "1]",
        "{" + ",".join(f'"{n}":0' for n in range(15_000)) + "}",
        '["' + '\\\\","' * 30_000 + '"]',
    ],
    ids=["objects", "strings", "numbers", "members", "escapes"],
)
def test_more_values_than_can_be_parsed_at_once(narrow: Stack, hostile: str) -> None:
    body = json.dumps(chat(max_tokens=1))[:-1] + f', "x": {hostile}' + "}"
    answer = narrow.post(content=body, headers={"content-type": "application/json"})
    assert "20000" in error_of(answer, 413, INVALID, "request_too_large")


def scripts_run(stack: Stack) -> int:
    """How many scripts Redis has run; each is a round trip."""
    url = running_url(stack.gateway.folder / "valkey")
    assert url is not None
    with redis.Redis.from_url(url) as client:
        return int(client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


@pytest.mark.parametrize("late", [False, True], ids=["with the head", "late"])
def test_a_known_keys_body_costs_no_round_trip_of_its_own(narrow: Stack, late: bool) -> None:
    """One for the admission, one for the settlement. What else asks meanwhile is far less than one a request."""
    with connected(narrow) as connection:
        before = 0
        for number in range(61):
            top = head(narrow, narrow.key, f"content-length: {len(SMALL)}")
            if late:
                connection.sendall(top)
                time.sleep(0.01)
                connection.sendall(SMALL)
            else:
                connection.sendall(top + SMALL)
            assert answer_of(connection)[0] == 200
            if number == 0:  # by then the key is known
                time.sleep(0.3)
                before = scripts_run(narrow)
        time.sleep(0.3)
        assert 120 <= scripts_run(narrow) - before < 150


def test_what_stands_inside_of_strings_is_no_value(narrow: Stack) -> None:
    text = json.dumps([{"a": ["\\", '"', 1, 2]}] * 10_000)
    assert narrow.post(json=chat(max_tokens=1, metadata={"note": text})).status_code == 200


def encoded(stack: Stack, body: bytes, encoding: str, key: str | None = None) -> httpx.Response:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    return stack.post(content=body, headers=headers, key=key)


LONG = json.dumps(chat(max_tokens=1, metadata={"note": "x" * 500_000})).encode()


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("body", [SMALL, LONG], ids=["small", "long"])
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
        ("identity", bytes),
        ("identity, gzip", gzip.compress),
    ],
)
def test_a_compressed_body(stack: Stack, encoding: str, pack: Callable[[bytes], bytes], body: bytes) -> None:
    answer = encoded(stack, pack(body), encoding)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "deflate, gzip", "aes128gcm", "é"])
def test_an_encoding_that_is_not_known(stack: Stack, encoding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": encoding.encode()}
    answer = stack.post(content=SMALL, headers=headers)
    assert "Content-Encoding" in error_of(answer, 415, INVALID, "unsupported_media_type")
    assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_bomb(stack: Stack, pack: Callable[[bytes], bytes]) -> None:
    before = resident(stack.gateway.process.pid)
    encoding = "gzip" if pack is gzip.compress else "deflate"
    bomb = pack(b" " * 200_000_000)
    error_of(encoded(stack, bomb, encoding), 413, INVALID, "request_too_large")
    error_of(encoded(stack, bomb, encoding, key=UNKNOWN), 401, INVALID, "invalid_api_key")
    assert resident(stack.gateway.process.pid) - before < 50_000_000
    stack.still_serves()


@pytest.mark.parametrize(
    "body",
    [SMALL, b"", gzip.compress(SMALL)[:-5], gzip.compress(SMALL) + b"more", gzip.compress(SMALL) * 2],
    ids=["not packed", "nothing", "cut", "more", "twice"],
)
def test_what_is_not_what_its_encoding_says(stack: Stack, body: bytes) -> None:
    assert "gzip" in error_of(encoded(stack, body, "gzip"), 400, INVALID, "invalid_encoding")


@pytest.mark.parametrize("body", [SMALL, LONG], ids=["small", "long"])
def test_a_byte_order_mark(stack: Stack, body: bytes) -> None:
    answer = stack.post(content=codecs.BOM_UTF8 + body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
def test_a_key_hears_nothing_of_the_models_that_it_may_not_use(stack: Stack, path: str) -> None:
    """The same words for a model, its alias, one that asks too much of it, and none at all."""
    key = create_key(stack.gateway, models="down")
    said = {"chat/completions": {"messages": [{"role": "user", "content": "x"}]}, "completions": {"prompt": "x"}}
    told = set()
    for name in ("sim", "llama3-8b", "gpt-9"):
        for more in ({}, {} if path == "embeddings" else {"max_tokens": 100_000}):
            body = {"model": name, **said.get(path, {"input": "x"}), **more}
            answer = stack.post(f"/v1/{path}", key=key, json=body)
            message = error_of(answer, 403, "permission_error", "model_not_allowed", "model")
            told.add(message.replace(name, "NAME"))
            headers = sorted(set(answer.headers) - {"x-request-id", "date"})
            told.add(str(headers))
    assert len(told) == 2, told
