"""Keeps what an engine has said in one stream, as far as another engine needs it to go on. Pure."""

from __future__ import annotations

from collections import deque

from .form import DATA, RunningForm

WINDOW = 64  # events; the last resume point is a few events back, with stop strings as many as those have characters


MOST_OF_ONE = 256 * 1024  # bytes of an event that is remembered beside others
_MOST_AT_ONCE = 16 * 1024  # bytes


class Transcript:
    """The relay writes it on its hot path as raw bytes, which are read only if the stream breaks.

    prompt_ids: the prompt's token ids, once the engine has named them; only for requests with one prompt. ended: the
    choices that have had a finish reason. ids: the generated token ids as `b"12,345,"`. recent: the last events that
    had a choice, with their token ids, in the form of the request's own path, also those of an adapted continuation.
    Some stand there as in the stream (see `payloads`). doubtful: no resume point may stand after this number of tokens,
    because the last event of these brought text of tokens that had come before.

    running: running chunks in `form` that `ids` and `recent` do not have yet. Each is its text (the inside of a JSON
    string), a line feed, its token ids and a line feed. So a token costs a few bytes at the end of one buffer, in a
    cache that hundreds of streams share.
    """

    __slots__ = ("_form", "_ids", "_lost", "_recent", "doubtful", "ended", "prompt_ids", "running")

    def __init__(self) -> None:
        self.prompt_ids: list[int] | None = None
        self.ended: set[int] = set()
        self.running = bytearray()
        self.doubtful = -1
        self._form: RunningForm | None = None
        self._ids = bytearray()
        self._recent: deque[bytes] = deque(maxlen=WINDOW)
        self._lost = False

    @property
    def form(self) -> RunningForm | None:
        return self._form

    @form.setter
    def form(self, form: RunningForm) -> None:
        self._catch_up()
        self._form = form

    @property
    def ids(self) -> bytearray:
        self._catch_up()
        return self._ids

    @property
    def recent(self) -> deque[bytes]:
        self._catch_up()
        return self._recent

    def add(self, ids: list[int]) -> None:
        if ids:
            self.ids.extend(b"%b," % ",".join(map(str, ids)).encode())

    @property
    def count(self) -> int:
        """Generated tokens."""
        return self.ids.count(b",")

    def remember(self, event: bytes) -> None:
        """Adds one event without its token ids. A huge event takes the place of all that came before."""
        if len(event) > MOST_OF_ONE:
            self.recent.clear()
            self._lost = True
        self.recent.append(event)

    def note(self, events: bytes, ids: bytes) -> None:
        """Adds several events at once. ids: their token ids as `b"12,345"`."""
        if ids:
            self.ids.extend(ids + b",")
        if len(events) > _MOST_AT_ONCE:
            events = events[events.index(b"\n\n", len(events) - _MOST_AT_ONCE) + 2 :]
            self._lost = True
        self.recent.append(events)

    def payloads(self) -> list[bytes]:
        """Returns the payloads of the recent events, in order."""
        return [event.removeprefix(DATA) for events in self.recent for event in events.split(b"\n\n") if event]

    @property
    def whole(self) -> bool:
        """Tells that `recent` still holds the whole stream."""
        return len(self.recent) < WINDOW and not self._lost

    def rewind(self, *, tokens: int, events: int, sent: bytes | None = None) -> None:
        """Keeps the first `tokens` tokens and the first `events` of `recent`.

        sent: an event with the text of the others and without tokens, because the client has that text.
        """
        kept = self.payloads()[:events]
        self._lost = not self.whole or len(kept) > WINDOW
        numbers = bytes(self.ids).split(b",")[:tokens]
        self._ids = bytearray(b"".join(number + b"," for number in numbers))
        self._recent = deque(kept, maxlen=WINDOW)
        if sent is not None:
            self._recent.append(sent)

    def _catch_up(self) -> None:
        if not self.running or self._form is None:
            return
        parts = bytes(self.running).split(b"\n")
        self.running.clear()  # it stays the same object, because the hot path holds it
        texts, ids = parts[:-1:2], parts[1::2]
        for numbers in filter(None, ids):
            self._ids += numbers + b","
        form = self._form
        self._recent.extend(
            form.payload(text, numbers) for text, numbers in zip(texts[-WINDOW:], ids[-WINDOW:], strict=True)
        )
