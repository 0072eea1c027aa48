"""Reads server-sent events incrementally: bytes go in as they come off a socket, and whole events come out.

It follows the WHATWG event-stream grammar as far as an OpenAI stream uses it: LF, CRLF and CR line ends, comments,
several `data:` lines, a space after the colon or none. The fields `event:`, `id:` and `retry:` are dropped, because an
`id:` with a comment block crashes openai-python (tried with 1.40 and 3.54).
"""

from __future__ import annotations

DONE = b"[DONE]"
DONE_FRAME = b"data: [DONE]\n\n"
KEEP_ALIVE_FRAME = b": keep-alive\n\n"


class EventTooLarge(Exception):
    """One event grew past the limit, so the stream cannot be followed any further."""


class EventSplitter:
    """Collects the bytes of one stream until an event is whole.

    `feed(data)` is `payloads(take(data))`. Callers that use whole events as they stand take the first step alone.
    """

    __slots__ = ("_after_cr", "_buffer", "_limit", "_scanned")

    def __init__(self, *, limit: int = 16 * 1024 * 1024) -> None:
        self._buffer = bytearray()
        self._scanned = 0  # the buffer holds no event end before this index
        self._after_cr = False
        self._limit = limit

    @property
    def idle(self) -> bool:
        """Returns True if the bytes so far ended with a whole event."""
        return not self._buffer and not self._after_cr

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the payloads (the joined `data:` lines) of the events that `data` completes, in order.

        Raises EventTooLarge when an unfinished event exceeds the limit.
        """
        return payloads(self.take(data))

    def take(self, data: bytes) -> bytes:
        """Returns the events that `data` completes, with LF line ends. The last event's blank line is included.

        Raises EventTooLarge.
        """
        if self._after_cr or b"\r" in data:
            data = self._normalised(data)
        if not self._buffer and data.endswith(b"\n\n"):
            return data
        buffer = self._buffer
        buffer += data
        end = buffer.rfind(b"\n\n", max(0, self._scanned - 1))
        if end < 0:
            self._scanned = len(buffer)
            if len(buffer) > self._limit:
                raise EventTooLarge(f"an event of more than {self._limit} bytes")
            return b""
        whole = bytes(buffer[: end + 2])
        del buffer[: end + 2]
        self._scanned = len(buffer)
        return whole

    def _normalised(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
            if not data:
                return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def payloads(events: bytes) -> list[bytes]:
    """Returns the payloads of whole events with LF line ends."""
    if events.startswith(b"data: ") and events.endswith(b"\n\n"):  # as a rule, each has one line
        found = events[6:-2].split(b"\n\ndata: ")
        if events.count(b"\n") == 2 * len(found) and b"" not in found:
            return found
    return [p for p in map(_payload, events.split(b"\n\n")) if p is not None]


def _payload(block: bytes) -> bytes | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines: list[bytes] = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) or None
