"""The fast path of a token: one read from an engine that holds a few running chunks becomes one write to the client.

Hundreds of streams share a processor's caches, so each chunk finds them cold. It costs more by the memory that it
touches than by the work that it makes. Therefore one object (`Shape`) has all that is
the same for many streams. The head of an event is copied from the bytes just read. Each token adds only a few bytes to
the end of one buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

from ..engine.connection import Connection, Shortcut
from .form import DATA, END, ID_BYTES, MODEL, NEVER, QUOTE, RunningForm, is_text

MOST_TEXTS = 1000
"""How many texts of a gathered answer wait before they are read, so that its size is known in time."""

_END = END + b"\r\n"  # 8 bytes
_LONGEST = 4096  # bytes, of what is read

_SIZES = [b"%x\r\n" % size for size in range(2 * _LONGEST)]
_EVENT_BEGINS = b"\r\n" + DATA + b"{"
# For each length of a read: how it begins if it is one HTTP chunk with one event. HAProxy writes sizes in capitals.
_BEGINNINGS = [(b"no chunk", b"no chunk")] * (_LONGEST + 8)
for _size in range(_LONGEST):
    _line = _SIZES[_size]
    _BEGINNINGS[len(_line) + _size + 2] = (_line + DATA + b"{", _line.upper() + DATA + b"{")


class Framed(Protocol):
    def write(self, data: bytes) -> None:
        """Writes a response's HTTP chunks, which have their sizes already."""


class Shape(NamedTuple):
    """Running chunks as they come from the engine and as they go to the client, the same for many streams.

    Ids and times differ between streams and are no part of it; only their length is.

    model_at, text_at: offsets of model and text from the event's first byte. between: the engine's bytes from model_at
    to text_at. instead: the bytes that the client gets there. silent: the bytes from model_at to the token ids in a
    chunk without text, which the client does not get. join: the bytes between text and token ids. tail: the bytes that
    the client gets after the text, with the end of the HTTP chunk. rest: how many bytes an event to the client has
    besides its text.
    """

    model_at: int
    text_at: int
    between: bytes
    instead: bytes
    silent: bytes
    join: bytes
    tail: bytes
    rest: int

    @classmethod
    def of(cls, form: RunningForm, start: bytes, tail: bytes) -> Shape | None:
        """Returns None if the head is not in an order that many streams share.

        start, tail: the bytes that the client gets before and after the text.
        """
        model_at = form.start.find(MODEL) + len(MODEL)
        if form.start.count(MODEL) != 1 or start[:model_at] != form.start[:model_at]:
            return None
        silent = form.silent[model_at:] or NEVER
        return _shape(model_at, form.start[model_at:], start[model_at:], silent, form.join, tail)


@lru_cache(maxsize=1024)
def _shape(model_at: int, between: bytes, instead: bytes, silent: bytes, join: bytes, tail: bytes) -> Shape | None:
    text_at = model_at + len(between)
    rest = model_at + len(instead) + len(tail)
    return None if rest > _LONGEST else Shape(model_at, text_at, between, instead, silent, join, tail + b"\r\n", rest)


class Express(Shortcut):
    """The fast path of one stream. running: the transcript's buffer for running chunks."""

    __slots__ = ("_client", "_clock", "_running", "shape")

    def __init__(self, shape: Shape, running: bytearray, client: Framed, clock: Callable[[], float]) -> None:
        self.shape = shape
        self._running = running
        self._client = client
        self._clock = clock

    def data_received(self, data: bytes) -> None:
        length = len(data)
        if length < _LONGEST:
            model_at, text_at, between, instead, silent, join, tail, rest = self.shape
            beginning = _BEGINNINGS[length]
            at = len(beginning[0]) - 7
            if data.startswith(beginning) and data.endswith(_END) and data.find(b"\n", at) == length - 4:
                if data.startswith(between, at + model_at):
                    cut = data.find(join, at + text_at)  # no text has it: its quotes are escaped
                    ids = data[cut + len(join) : -8]
                    text = data[at + text_at : cut]
                    if cut > 0 and (ids.isdigit() or not ids.strip(ID_BYTES)) and (QUOTE not in text or is_text(text)):
                        running = self._running
                        running += b"\n".join((text, ids, b""))
                        clock = self._clock  # called as an attribute, it would be looked for as a method first
                        self.heard_at = clock()
                        size = _SIZES[rest + len(text)]
                        self._client.write(b"".join((size, data[at : at + model_at], instead, text, tail)))
                        return
                elif data.startswith(silent, at + model_at):
                    ids = data[at + model_at + len(silent) : -8]
                    if not ids.strip(ID_BYTES):
                        running = self._running
                        running += b"\n%b\n" % ids
                        clock = self._clock
                        self.heard_at = clock()
                        return
            self._several(data)
        else:
            self.give_back(data)

    def _several(self, data: bytes) -> None:
        """Takes a read of a few chunks. Gives it back from the first chunk on that is no running chunk."""
        model_at, text_at, between, instead, silent, join, tail, rest = self.shape
        known: list[bytes] = []
        out: list[bytes] = []
        at, length = 0, len(data)
        while at < length:
            begin = data.find(_EVENT_BEGINS, at, at + 16) + 2  # of the event
            if begin < at + 3:
                break
            size = data[at : begin - 2]
            if not size.isalnum():
                break
            try:
                end = begin + int(size, 16)  # of the event, whose last line feed is before
            except ValueError:
                break
            if data[end - 6 : end + 2] != _END or data.find(b"\n", begin) != end - 2:
                break
            body = begin + model_at
            if data.startswith(between, body):
                cut = data.find(join, begin + text_at, end)
                ids = data[cut + len(join) : end - 6]
                text = data[begin + text_at : cut]
                if cut < 0 or ids.strip(ID_BYTES) or not is_text(text):
                    break
                known += (text, ids)
                out += (_SIZES[rest + len(text)], data[begin:body], instead, text, tail)
            elif data.startswith(silent, body):
                ids = data[body + len(silent) : end - 6]
                if ids.strip(ID_BYTES):
                    break
                known += (b"", ids)
            else:
                break
            at = end + 2
        if known:
            known.append(b"")
            self._running += b"\n".join(known)
            self.heard_at = self._clock()
            if out:
                self._client.write(b"".join(out))
        if at < length:
            self.give_back(data[at:])


class Gathering(Shortcut):
    """The fast path of an answer that is gathered: its texts (insides of JSON strings) go to `texts`."""

    __slots__ = ("_clock", "_left", "_running", "_texts", "form")

    def __init__(self, form: RunningForm, running: bytearray, texts: list[bytes], clock: Callable[[], float]) -> None:
        self.form = form
        self._running = running
        self._texts = texts
        self._clock = clock
        self._left = 0

    def begin(self, connection: Connection) -> None:
        super().begin(connection)
        self._left = MOST_TEXTS  # after these the collector counts their size

    def data_received(self, data: bytes) -> None:
        length = len(data)
        left = self._left
        if length < _LONGEST and left:
            self._left = left - 1
            beginning = _BEGINNINGS[length]
            at = len(beginning[0]) - 1
            if data.startswith(beginning) and data.endswith(_END) and data.find(b"\n", at) == length - 4:
                found = self.form.one(data[at:-4])
                if found is not None and not found[1].strip(ID_BYTES):
                    self._running += b"%b\n%b\n" % found
                    self._texts.append(found[0])
                    clock = self._clock
                    self.heard_at = clock()
                    return
        self.give_back(data)
