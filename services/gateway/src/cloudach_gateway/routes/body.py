"""A request's key, media type and body, read within limits."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope

from ..errors import InvalidApiKey, InvalidRequest, RequestTooLarge, UnsupportedMediaType
from .connection import CONNECTION

# A refused body is still read, up to this much and this long: a client that is cut off while it sends sees a broken
# connection instead of the 413.
_SWALLOW_BYTES = 128 * 1024 * 1024
_SWALLOW_S = 10.0
_PATIENCE_S = 60.0
_AT_ONCE = 65_536


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


def bearer_key(scope: Scope) -> str:
    """Raises InvalidApiKey when there is none."""
    value = header(scope, b"authorization")
    if value is None:
        raise InvalidApiKey(
            "You didn't provide an API key. Send it as a bearer token: `Authorization: Bearer YOUR_KEY`."
        )
    scheme, _, key = value.partition(b" ")
    key = key.strip()
    if scheme.lower() != b"bearer" or not key:
        raise InvalidApiKey("The Authorization header must have the form `Bearer YOUR_KEY`.")
    return key.decode("latin-1")


def require_json(scope: Scope) -> None:
    value = header(scope, b"content-type")
    if value is None:
        return
    media = value.split(b";", 1)[0].strip().lower()
    if media != b"application/json" and not media.endswith(b"+json"):
        raise UnsupportedMediaType(
            f"Send the body as `Content-Type: application/json`, not `{media.decode('latin-1')}`."
        )


async def read_body(scope: Scope, receive: Receive, *, limit: int) -> bytes:
    """Raises RequestTooLarge past `limit` bytes, InvalidRequest for a body that does not come, ClientGone."""
    declared = header(scope, b"content-length")
    small = declared is not None and declared.isdigit() and int(declared) <= min(limit, _AT_ONCE)
    if small and scope["extensions"][CONNECTION].body_is_here:  # as a rule it came with the headers: no clock is needed
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message["body"]
        return body
    return await _read_slowly(scope, receive, limit=limit, declared=declared)


async def _read_slowly(scope: Scope, receive: Receive, *, limit: int, declared: bytes | None) -> bytes:
    clock = asyncio.get_running_loop().time
    too_large = declared is not None and declared.isdigit() and int(declared) > limit
    swallowing = False
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_PATIENCE_S) as patience:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > limit or too_large:
                    if not swallowing:
                        swallowing = True
                        patience.reschedule(clock() + _SWALLOW_S)
                    parts.clear()
                    if size > _SWALLOW_BYTES:
                        break
                else:
                    parts.append(part)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        if not swallowing:
            raise InvalidRequest(f"The request body did not arrive within {_PATIENCE_S:.0f} s.") from None
    if swallowing:
        raise RequestTooLarge(f"The request body is larger than {limit} bytes.")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None
