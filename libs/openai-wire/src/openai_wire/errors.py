"""The error envelope that every OpenAI SDK reads: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import orjson


def error_body(message: str, *, type: str, param: str | None = None, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": type, "param": param, "code": code}})


def error_frame(
    message: str, *, type: str = "server_error", param: str | None = None, code: str | None = None
) -> bytes:
    """Makes the last event of a broken stream.

    The SDKs raise on the top-level key `error`. An event with only an `event:` name reaches the user as a chunk (tried
    with openai-python 1.40 and 3.54, openai-node 6.49).
    """
    return b"data: " + error_body(message, type=type, param=param, code=code) + b"\n\n"
