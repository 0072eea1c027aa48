"""Reads a request's body as FastAPI and vLLM do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from . import errors
from .errors import Refusal


def read_json(headers: Mapping[bytes, bytes], body: bytes) -> Any:
    """Returns the JSON value. Raises Refusal, in vLLM's words."""
    media = headers.get(b"content-type", b"").split(b";", 1)[0].lower()
    if media != b"application/json":
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise Refusal(400, errors.envelope(message, "Bad Request", None, 400))
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # vLLM reads with the standard library, so its words apply, and it accepts what that accepts beyond the
        # standard.
        try:
            return json.loads(body)
        except json.JSONDecodeError as error:
            raise errors.bad_json(error.pos, error.msg) from None
        except (RecursionError, UnicodeDecodeError):
            message = "There was an error parsing the body"
            raise Refusal(400, errors.envelope(message, "Bad Request", None, 400)) from None
