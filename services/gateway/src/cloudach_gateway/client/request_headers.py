"""Reads the headers that tell a request's key and its body's type."""

from __future__ import annotations

from starlette.types import Scope

from ..errors import InvalidApiKey, UnsupportedMediaType


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


def bearer_key(scope: Scope) -> str:
    """Returns the key of the Authorization header. Raises InvalidApiKey if there is none."""
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


def header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None
