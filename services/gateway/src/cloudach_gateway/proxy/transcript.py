"""What an engine has said in one stream, as far as another engine needs it to go on."""

from __future__ import annotations

from collections import deque

WINDOW = 64  # events; back to the last clean cut it is a few, with stop strings about as many as their characters


_MOST_AT_ONCE = 16 * 1024  # bytes


class Transcript:
    """Kept by the relay on its hot path: raw bytes only, read when a stream breaks.

    prompt_ids: of a request with one prompt, once the engine has named them. ids: the generated token ids as
    `b"12,345,"`. recent: the last events that had a choice, some as they stood in the stream (see `payloads`), in the
    dialect of the request's own path and with their token ids, an adapted continuation's included. doubtful: a number
    of tokens after which not to cut, because their last event brought text of tokens that had come before.
    """

    __slots__ = ("_lost", "doubtful", "ids", "prompt_ids", "recent")

    def __init__(self) -> None:
        self.prompt_ids: list[int] | None = None
        self.ids = bytearray()
        self.recent: deque[bytes] = deque(maxlen=WINDOW)
        self.doubtful = -1
        self._lost = False

    def add(self, ids: list[int]) -> None:
        if ids:
            self.ids += b"%b," % ",".join(map(str, ids)).encode()

    @property
    def count(self) -> int:
        """Generated tokens."""
        return self.ids.count(b",")

    def note(self, events: bytes) -> None:
        """Several events at once."""
        if len(events) > _MOST_AT_ONCE:
            events = events[events.index(b"\n\n", len(events) - _MOST_AT_ONCE) + 2 :]
            self._lost = True
        self.recent.append(events)

    def payloads(self) -> list[bytes]:
        """Of the recent events, in order."""
        return [event.removeprefix(b"data: ") for events in self.recent for event in events.split(b"\n\n") if event]

    @property
    def whole(self) -> bool:
        """Whether `recent` still holds everything."""
        return not self._lost and len(self.recent) < WINDOW

    def rewind(self, *, tokens: int, events: int, sent: bytes | None = None) -> None:
        """Keeps the first `tokens` tokens and the first `events` of `recent`. sent: the text of the others as an event
        without tokens; the client has it."""
        kept = self.payloads()[:events]
        self._lost = not self.whole or len(kept) > WINDOW
        numbers = bytes(self.ids).split(b",")[:tokens]
        self.ids = bytearray(b"".join(number + b"," for number in numbers))
        self.recent = deque(kept, maxlen=WINDOW)
        if sent is not None:
            self.recent.append(sent)
