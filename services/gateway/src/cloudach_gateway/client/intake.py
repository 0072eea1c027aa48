"""Reads request bodies: within bounds, none that is large from a stranger, and none that holds up the event loop.

A small body that came with its head is read at once, because its admission checks the key in the one round trip to
Redis. For any other body the key is checked before the body is read: Redis has vouched for it lately, or is asked now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from starlette.types import Receive, Scope

from ..admission.api_keys import PresentedKey
from ..errors import RequestTimeout, RequestTooLarge
from ..settings import Settings
from .connection import CONNECTION
from .encodings import content_encoding, unpacked
from .request_headers import ClientGone, header
from .room import Room

# A refused body is still read, up to this size and this long, because a client that is cut off while it sends sees a
# broken connection instead of the 413.
_SWALLOW_BYTES = 128 * 1024 * 1024
_SWALLOW_S = 10.0
_AT_ONCE = 65_536  # bytes; smaller bodies are read and worked on without a thread

Given = ParamSpec("Given")
Made = TypeVar("Made")


class Intake:
    """Reads the bodies of one process's requests."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_body_bytes
        self._patience_s = settings.timeouts.body_s
        bodies = settings.bodies
        self._room = Room(max(bodies.unfinished_bytes, 2 * self._limit), wait_s=bodies.wait_s)
        # One thread only: with more threads the event loop would wait for each of them in turn, as one runs at a time.
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="bodies")

    def is_ordinary(self, scope: Scope) -> bool:
        """Returns whether the body is here, small, and not compressed."""
        declared = _declared(scope)
        small = declared is not None and declared <= _AT_ONCE
        return small and scope["extensions"][CONNECTION].body_is_here and header(scope, b"content-encoding") is None

    async def read(self, scope: Scope, receive: Receive, key: PresentedKey) -> bytes:
        """Returns the body without its encoding.

        Raises RequestTooLarge, RequestTimeout, UnsupportedMediaType, InvalidRequest (it cannot be decompressed),
        Overloaded, ClientGone.
        """
        encoding = content_encoding(scope)
        if scope["extensions"][CONNECTION].body_is_here:  # the usual case, which needs no clock
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body: bytes = message["body"]
            if len(body) > self._limit:
                raise self._too_large()
        else:
            declared = _declared(scope)
            too_large = declared is not None and declared > self._limit
            if too_large or (declared is not None and declared <= _AT_ONCE):  # uvicorn keeps that much anyway
                body = await self._arrived(receive, too_large=too_large)
            else:
                async with self._room.of(key.tenant, self._limit if declared is None else declared):
                    body = await self._arrived(receive, too_large=False)
        if encoding is None:
            return body
        return await asyncio.get_running_loop().run_in_executor(
            self._beside, lambda: unpacked(body, encoding, limit=self._limit)
        )

    async def worked(self, size: int, work: Callable[Given, Made], *args: Given.args, **kwargs: Given.kwargs) -> Made:
        """Returns what `work` makes of a body of `size` bytes. For a large body it runs in a thread."""
        if size <= _AT_ONCE:
            return work(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._beside, lambda: work(*args, **kwargs))

    async def _arrived(self, receive: Receive, *, too_large: bool) -> bytes:
        """Returns the body once it has arrived. too_large: it is read only so that its sender hears the refusal."""
        clock = asyncio.get_running_loop().time
        swallowing = False
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._patience_s) as patience:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self._limit or too_large:
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
                raise RequestTimeout(f"The request body did not arrive within {self._patience_s:g} s.") from None
        if swallowing:
            raise self._too_large()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"The request body is larger than {self._limit} bytes.")


def _declared(scope: Scope) -> int | None:
    value = header(scope, b"content-length")
    return int(value) if value is not None and value.isdigit() else None
