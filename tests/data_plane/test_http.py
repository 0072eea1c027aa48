"""What HTTP/1 lets a client send, and what it must not: framing, versions, HEAD, limits, refusals."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.data_plane.conftest import Stack, chat
from tests.data_plane.streamed import Streamed
from tests.support.ports import free_port
from tests.support.processes import memory
from tests.support.stack import served_by, start_gateway

SECOND = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n"


@contextlib.contextmanager
def connected(stack: Stack) -> Iterator[socket.socket]:
    url = httpx.URL(stack.gateway.url)
    with socket.create_connection((url.host, url.port), timeout=30) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    """Until the gateway ends the connection."""
    parts = []
    while part := client.recv(1_000_000):
        parts.append(part)
    return b"".join(parts)


def exchange(stack: Stack, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """What comes back on one connection; the last part should have the connection closed."""
    with connected(stack) as client:
        for number, part in enumerate(parts):
            if number:
                time.sleep(pause_s)
            client.sendall(part)
        return read_all(client)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def error_code(answer: bytes) -> str:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]


def post(stack: Stack, body: bytes, headers: bytes, *, version: bytes = b"1.1") -> bytes:
    head = b"POST /v1/chat/completions HTTP/%b\r\nAuthorization: Bearer %b\r\n" % (version, stack.key.encode())
    return head + b"Content-Type: application/json\r\nContent-Length: %d\r\n%b\r\n" % (len(body), headers)


# Upgrade.


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
def test_a_body_behind_an_upgrade_is_no_second_request(stack: Stack, pause_s: float) -> None:
    head = post(stack, SECOND, UPGRADE)
    answer = exchange(
        stack, head, SECOND + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", pause_s=pause_s
    )
    assert statuses(answer) == [400, 200]
    assert b"invalid_json" in answer


@pytest.mark.parametrize("body", [b"Content-Length: 38\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n26\r\n"])
def test_nor_without_a_key(stack: Stack, body: bytes) -> None:
    """Its body is read by its framing, though nobody wants it."""
    inner = b"GET /v1/models HTTP/1.1\r\nHost: xxx\r\n\r\n"
    assert len(inner) == 38
    end = b"\r\n0\r\n\r\n" if b"chunked" in body else b""
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n" + body
    last = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for pause_s in (0.0, 0.1):
        assert statuses(exchange(stack, head, inner + end, last, pause_s=pause_s)) == [200, 404]


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"HTTP/3.0, x"])
def test_who_wishes_to_upgrade_is_served_as_he_is(stack: Stack, protocol: bytes) -> None:
    body = json.dumps(chat(max_tokens=3)).encode()
    headers = b"Host: x\r\nConnection: close, Upgrade\r\nUpgrade: %b\r\n" % protocol
    answer = exchange(stack, post(stack, body, headers) + body)
    assert statuses(answer) == [200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["usage"]["completion_tokens"] == 3


def test_curl_with_http2(stack: Stack) -> None:
    command = ["curl", "-s", "--http2", "-m", "30", f"{stack.gateway.base_url}/chat/completions"]
    command += ["-H", f"Authorization: Bearer {stack.key}", "-H", "Content-Type: application/json"]
    done = subprocess.run([*command, "-d", json.dumps(chat(max_tokens=3))], capture_output=True, check=True)
    assert json.loads(done.stdout)["usage"]["completion_tokens"] == 3


def test_connect_is_refused(stack: Stack) -> None:
    answer = exchange(stack, b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n" + SECOND)
    assert statuses(answer) == [405]
    assert b"allow: GET, HEAD, POST" in answer


# HEAD.

WITHOUT_BODY = [
    ("/healthz", 200),
    ("/readyz", 200),
    ("/v1/models", 401),
    ("/nothing", 404),
    ("/v1/chat/completions", 405),
]


@pytest.mark.parametrize(("path", "status"), WITHOUT_BODY)
def test_head(stack: Stack, path: str, status: int) -> None:
    """At once, and what follows on the connection is the next answer's head: there was no body."""
    with connected(stack) as client:
        client.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        first = client.recv(65536)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        second = read_all(client)
    assert statuses(first) == [status]
    assert first.endswith(b"\r\n\r\n")
    assert second.startswith(b"HTTP/1.1 200")
    length = re.search(rb"content-length: (\d+)", first)
    assert length
    assert int(length[1]) > 0
    assert (b"allow: POST" in first) == (status == 405)


def test_head_with_a_key(stack: Stack) -> None:
    headers = {"authorization": f"Bearer {stack.key}"}
    whole = httpx.get(f"{stack.gateway.base_url}/models", headers=headers)
    answer = httpx.head(f"{stack.gateway.base_url}/models", headers=headers, timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == whole.headers["content-length"]


def test_head_of_the_metrics(stack: Stack) -> None:
    port = free_port()
    with start_gateway({"models": [served_by(stack.sim)], "listen": {"metrics_port": port}}):
        answer = httpx.head(f"http://127.0.0.1:{port}/metrics", timeout=10)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 1000
        assert httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).status_code == 200


def test_the_metrics_have_room_for_who_asks_soon(stack: Stack) -> None:
    port = free_port()
    with start_gateway({"models": [served_by(stack.sim)], "listen": {"metrics_port": port}}):
        idle = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(40)]
        time.sleep(0.2)
        assert [one for one in idle if is_closed(one)], "there is room for a few at a time"
        for one in idle:
            one.settimeout(30)
            assert one.recv(1) == b"", "who does not ask is cut off"
            one.close()
        assert httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).status_code == 200


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


# HTTP/1.0.


def test_a_whole_answer_over_http_1_0(stack: Stack) -> None:
    body = json.dumps(chat(max_tokens=3)).encode()
    answer = exchange(stack, post(stack, body, b"Connection: keep-alive\r\n", version=b"1.0") + body)
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert json.loads(content)["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("tokens", [1, 40])
def test_a_stream_over_http_1_0(stack: Stack, tokens: int) -> None:
    """As long as it lasts, then the connection ends; nothing but events in it."""
    body = json.dumps(chat("Once", max_tokens=tokens, stream=True, ignore_eos=True)).encode()
    answer = exchange(stack, post(stack, body, b"", version=b"1.0") + body)
    head, _, content = answer.partition(b"\r\n\r\n")
    assert statuses(head) == [200]
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    over_1_1 = stack.post(json=chat("Once", max_tokens=tokens, stream=True, ignore_eos=True)).content
    assert anonymous(content) == anonymous(over_1_1)
    assert Streamed(content).done


def anonymous(stream: bytes) -> bytes:
    return re.sub(rb'"id":"[^"]*"|"created":\d+', b"", stream)


def test_errors_and_head_over_http_1_0(stack: Stack) -> None:
    assert error_code(exchange(stack, b"GET /nothing HTTP/1.0\r\n\r\n")) == "unknown_url"
    answer = exchange(stack, b"HEAD /healthz HTTP/1.0\r\n\r\n")
    assert statuses(answer) == [200]
    assert answer.endswith(b"\r\n\r\n")


def test_expect_over_http_1_0_is_not_answered(stack: Stack) -> None:
    body = json.dumps(chat(max_tokens=3)).encode()
    answer = exchange(stack, post(stack, body, b"Expect: 100-continue\r\n", version=b"1.0"), body, pause_s=0.1)
    assert statuses(answer) == [200]


# What is no request.

REFUSED = {
    "no Host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "invalid_http"),
    "two Hosts": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "invalid_http"),
    "two Hosts in HTTP/1.0": (b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, "invalid_http"),
    "a Host that is none": (b"GET /healthz HTTP/1.1\r\nHost: a b/c\r\n\r\n", 400, "invalid_http"),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 505, "http_version_not_supported"),
    "HTTP/2.0": (b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 505, "http_version_not_supported"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_http"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_http"),
    "gzip, chunked": (
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
        "not_implemented",
    ),
    "gzip alone": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
    "chunked in HTTP/1.0": (
        b"GET /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_http",
    ),
    "both framings": (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_http",
    ),
    "two lengths": (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        400,
        "invalid_http",
    ),
    "a wrong length behind an upgrade": (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        501,
        "not_implemented",
    ),
    "a folded header": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, "invalid_http"),
    "bare line feeds": (b"GET /healthz HTTP/1.1\nHost: a\n\n", 400, "invalid_http"),
    "a long URL": (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 9000), 414, "uri_too_long"),
    "a URL without end": (b"GET /%b" % (b"a" * 70_000), 414, "uri_too_long"),
    "a long header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"a" * 66_000), 431, "head_too_large"),
    "many headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000, 431, "head_too_large"),
    "a header without end": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 300_000, 431, "head_too_large"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(stack: Stack, case: str) -> None:
    """With our words and an id, and nothing behind it is read; the log says who it was."""
    sent, status, code = REFUSED[case]
    with connected(stack) as client:
        client.sendall(sent)
        peer = "{}:{}".format(*client.getsockname()[:2])
        answer = read_all(client)
    assert statuses(answer) == [status]
    assert error_code(answer) == code
    said = re.search(rb"x-request-id: (req_\w+)", answer)
    assert said
    (line,) = (line for line in stack.gateway.output.splitlines() if said[1].decode() in line)
    assert json.loads(line)["peer"] == peer
    stack.still_serves()


@pytest.mark.parametrize("size", [1, 7])
def test_it_is_refused_however_it_is_cut(stack: Stack, size: int) -> None:
    sent = b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    parts = [sent[at : at + size] for at in range(0, len(sent), size)]
    assert statuses(exchange(stack, *parts, pause_s=0.001)) == [501]


@pytest.mark.parametrize("target", ["/v1/chat%2fcompletions", "/v1%2Fchat/completions", "/%761/chat/completions"])
def test_a_route_has_one_spelling(stack: Stack, target: str) -> None:
    answer = stack.post(target, json=chat(max_tokens=2))
    assert answer.status_code == 404, answer.text
    assert answer.json()["error"]["code"] == "unknown_url"


def test_a_models_name_may_be_escaped(stack: Stack) -> None:
    headers = {"authorization": f"Bearer {stack.key}"}
    assert httpx.get(f"{stack.gateway.base_url}/models/s%69m", headers=headers).json()["id"] == "sim"


def test_a_whole_url_as_target(stack: Stack) -> None:
    sent = b"GET http://api.example.com/healthz HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"
    assert statuses(exchange(stack, sent)) == [200]


# Trailers.


def test_a_key_in_a_trailer_is_none(stack: Stack) -> None:
    body = json.dumps(chat(max_tokens=2)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    chunks = b"%x\r\n%b\r\n0\r\nAuthorization: Bearer %b\r\n\r\n" % (len(body), body, stack.key.encode())
    assert statuses(exchange(stack, head + b"\r\n" + chunks)) == [401]
    good = b"Authorization: Bearer %b\r\nContent-Type: application/json\r\n\r\n" % stack.key.encode()
    assert statuses(exchange(stack, head + good, chunks.replace(b"Authorization", b"X-Sum"))) == [200]


def test_trailers_have_a_limit(stack: Stack) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % stack.key.encode()
    head += b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    for trailers in (b"X: y\r\n" * 20_000, b"X: " + b"y" * 200_000):
        answer = exchange(stack, head + trailers)
        assert statuses(answer) == [431]
    stack.still_serves()


# Pipelines.


def test_a_pipeline_is_answered_in_order(stack: Stack) -> None:
    body = json.dumps(chat(max_tokens=2)).encode()
    asked = []
    for number in range(40):
        if number % 4 == 0:
            asked.append(post(stack, body, b"Host: x\r\n") + body)
        else:
            asked.append(b"GET /nothing-%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = exchange(stack, b"".join(asked) + last)
    assert statuses(answer) == [200, 404, 404, 404] * 10 + [200]
    assert re.findall(rb"/nothing-(\d+)", answer) == [b"%d" % number for number in range(40) if number % 4]


def test_what_is_no_http_behind_a_stream_waits_for_its_end(stack: Stack) -> None:
    body = json.dumps(chat(max_tokens=30, stream=True, ignore_eos=True)).encode()
    answer = exchange(stack, post(stack, body, b"Host: x\r\n") + body, b"what?\r\n\r\n", pause_s=0.05)
    first, _, second = answer.partition(b"0\r\n\r\n")
    assert statuses(answer) == [200, 400]
    assert b"[DONE]" in first
    assert second.startswith(b"HTTP/1.1 400")


def test_a_pipeline_that_is_not_read_costs_no_memory(stack: Stack) -> None:
    """200,000 requests, sent as far as the gateway takes them."""
    stack.still_serves()
    before = memory(stack.gateway)
    with connected(stack) as client:
        client.settimeout(2.0)
        data = memoryview(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 200_000)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(data):
                sent += client.send(data[sent : sent + 1_000_000])
        assert memory(stack.gateway) - before < 8_000_000
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stack.still_serves()


# Memory.


def test_a_head_that_is_too_large_costs_no_memory(stack: Stack) -> None:
    stack.still_serves()
    before = memory(stack.gateway)
    for line in (b"X-%07d: y\r\n", b"%07d"):
        with connected(stack) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"" if b":" in line else b"X: "))
            with contextlib.suppress(ConnectionError, TimeoutError):
                for part in range(25):
                    client.sendall(b"".join(line % number for number in range(part * 70_000, (part + 1) * 70_000)))
                read_all(client)
    assert memory(stack.gateway) - before < 8_000_000
    stack.still_serves()
