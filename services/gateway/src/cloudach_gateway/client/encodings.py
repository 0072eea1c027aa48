"""Decompresses request bodies within the limit for bodies."""

from __future__ import annotations

import zlib

from starlette.types import Scope

from ..errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType

_KNOWN = (b"gzip", b"x-gzip", b"deflate")
_GZIP = 16 + zlib.MAX_WBITS


def content_encoding(scope: Scope) -> bytes | None:
    """Returns None for a body without an encoding. Raises UnsupportedMediaType for an unknown encoding."""
    named = b",".join(value for name, value in scope["headers"] if name == b"content-encoding")
    found = [one for one in (part.strip().lower() for part in named.split(b",")) if one not in (b"", b"identity")]
    if not found:
        return None
    if len(found) > 1 or found[0] not in _KNOWN:
        error = UnsupportedMediaType(
            f"Content-Encoding `{b', '.join(found).decode('latin-1')}` is not supported: send the body as it is, or "
            "with one of `gzip` and `deflate`."
        )
        error.headers.append((b"accept-encoding", b"gzip, deflate"))
        raise error
    return found[0]


def unpacked(body: bytes, encoding: bytes, *, limit: int) -> bytes:
    """Returns the decompressed body. Stops beyond `limit` bytes. Raises RequestTooLarge, InvalidRequest."""
    name = encoding.decode()
    decompressor = zlib.decompressobj(_window(body, encoding))
    try:
        data = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(
            f"The request body is not `{name}`, which its Content-Encoding says: {error}.", code="invalid_encoding"
        ) from None
    if len(data) > limit:
        raise RequestTooLarge(f"The request body is larger than {limit} bytes once it is decompressed.")
    if not decompressor.eof or decompressor.unused_data:
        what = "has something behind its end" if decompressor.eof else "has no end"
        raise InvalidRequest(f"The `{name}` of the request body {what}.", code="invalid_encoding")
    return data


def _window(body: bytes, encoding: bytes) -> int:
    """Returns zlib's `wbits` for this body. `deflate` means zlib's format, but some clients send the raw one."""
    if encoding != b"deflate":
        return _GZIP
    is_zlib = len(body) >= 2 and body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
