"""What stands on the wire: answers and event streams of an engine, byte by byte, and the errors that a client gets."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

# As vLLM begins a stream.
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
INVALID = "invalid_request_error"

REASONS = {200: "OK", 400: "Bad Request", 422: "Unprocessable Entity", 500: "Internal Server Error"}


def response(
    body: bytes | str,
    *,
    status: int = 200,
    kind: str | None = "application/json",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A whole HTTP response with its length. kind: its content type; None names none."""
    data = body.encode() if isinstance(body, str) else body
    named = {**({} if kind is None else {"content-type": kind}), "content-length": str(len(data)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} {REASONS.get(status, 'So')}\r\n{head}\r\n".encode() + data


def sse(*payloads: str | bytes) -> bytes:
    return b"".join(b"data: %b\n\n" % (p.encode() if isinstance(p, str) else p) for p in payloads)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(*pieces: bytes) -> bytes:
    """A whole chunked body, in these pieces."""
    return b"".join(map(chunk, pieces)) + LAST_CHUNK


def events(*payloads: str | bytes) -> bytes:
    """A whole event stream with these payloads, each in an HTTP chunk of its own, as vLLM sends them."""
    return STREAM_HEAD + chunked(*map(sse, payloads))


def error_of(answer: httpx.Response, status: int, kind: str, code: str | None, param: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["type"], body["error"]["code"], body["error"]["param"]) == (kind, code, param)
    message: str = body["error"]["message"]
    return message
