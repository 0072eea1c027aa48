"""Checks a request's head: its size, its version, its Host, and how its body is framed. Pure.

The parser lets some requests pass that a server must refuse (RFC 9112). They are refused here, because a proxy before
the gateway may read them differently, and would then see another request in the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import GatewayError, InvalidRequest, MethodNotAllowed, NotImplementedHere, UnsupportedVersion, UriTooLong

MOST_HEAD_BYTES = 65_536
"""The longest request head, and the longest trailer section."""

MOST_URL_BYTES = 8192

FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))
"""The headers, in lower case, that `body_length` has to see."""

CHUNKED = -1
"""Stands for the length of a body in chunks, which say themselves where it ends."""

_HOST = re.compile(rb"[A-Za-z0-9.\-_~:\[\]%!$&'()*+,;=]*")


def invalid_http(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_http")


def url_too_long() -> UriTooLong:
    return UriTooLong(f"The request's URL is longer than {MOST_URL_BYTES} bytes.")


def connect_refused() -> GatewayError:
    error = MethodNotAllowed("CONNECT is not allowed: this is no proxy.")
    error.headers.append((b"allow", b"GET, HEAD, POST"))
    return error


def body_length(version: str, url: bytes, framing: Iterable[tuple[bytes, bytes]]) -> int:
    """Returns the length of the request's body in bytes, or CHUNKED. Raises GatewayError.

    version: like "1.1". framing: the headers that FRAMING names, in their order, with names in lower case.
    """
    if version not in ("1.1", "1.0"):
        raise UnsupportedVersion(f"HTTP/{version} is not spoken here; send HTTP/1.1.")
    if len(url) > MOST_URL_BYTES:
        raise url_too_long()
    hosts, length, codings = 0, 0, []
    for name, value in framing:
        if name == b"host":
            hosts += 1
            if _HOST.fullmatch(value) is None:
                raise invalid_http("The Host header is no host name.")
        elif name == b"content-length":  # the parser lets only one pass, and only of digits
            length = int(value)
        elif name == b"transfer-encoding":
            codings.append(value.strip(b" \t").lower())
    if hosts > 1:
        raise invalid_http("The request has more than one Host header.")
    if hosts == 0 and version == "1.1":
        raise invalid_http("The request has no Host header.")
    if not codings:
        return length
    if version == "1.0":
        raise invalid_http("HTTP/1.0 has no Transfer-Encoding.")
    if codings != [b"chunked"]:
        raise NotImplementedHere("The only Transfer-Encoding that is understood here is `chunked`.")
    return CHUNKED
