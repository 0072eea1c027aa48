"""The one place that knows how vLLM writes its chunks, byte for byte: pure.

A *running chunk* brings text or token ids and nothing else; nearly all chunks of a stream are running chunks. They are
recognised and edited as bytes, because to parse each of them would cost several times as much. The search is safe: no
JSON string can hold the bytes that are searched for, because JSON escapes the quotes in them.

`tests/proxy/stream/test_form.py` holds the forms that vLLM is known to write. A chunk in any other form is parsed,
which is right but slow; `slow_path` says why, and a metric counts it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from ..engine.chunk import parse

DATA = b"data: "
IDS_END = b"]}]}"
"""This is how the payload of a running chunk ends, after its token ids."""
END = IDS_END + b"\n\n"
"""This is how the event of a running chunk ends, after its token ids."""
ID_BYTES = b"0123456789,"
"""Token ids are written with these bytes, without spaces."""
NEVER = b"data: \n"
"""No event begins so; it stands where a form has nothing to look for."""
MODEL = b'"model":'
PROMPT_IDS = b'"prompt_token_ids":['
QUOTE = ord('"')  # bytes are searched for a number several times as fast as for other bytes

_HEAD = ("id", "object", "created", "model")
_CHOICES = b',"choices":['
_A_CHOICE = b'"choices":[{'
_IDS = b',"token_ids":['
_NO_PROMPT_IDS = b',"prompt_token_ids":null'
_CONTENT = b'{"content":"'
_NO_CONTENT = b"{}"
_COMPLETION_TEXT = b'{"index":0,"text":'
_COMPLETION_JOIN = b',"logprobs":null,"finish_reason":null,"stop_reason":null' + _NO_PROMPT_IDS + _IDS
_CHAT_TEXT = b'{"index":0,"delta":{"content":'
_CHAT_SILENT = b'{"index":0,"delta":{'
_CHAT_JOIN = b'},"logprobs":null,"finish_reason":null' + _IDS
_EMPTY_TEXT = b'""'

# A running chunk as vLLM writes it: head, choice, text, then this up to the token ids.
_RUNNING = re.compile(
    rb'(?P<start>\{[^\[]*,"choices":\[\{"index":0,(?:"delta":\{"content":|"text":)")(?:[^"\\]++|\\.)*+'
    rb'(?P<join>"\}?,"logprobs":null,"finish_reason":null(?:,"stop_reason":null)?(?:,"prompt_token_ids":null)?'
    rb',"token_ids":\[)'
    rb"[0-9,]*\]\}\]\}"
)
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


def is_text(found: bytes) -> bool:
    """Returns whether these bytes are the inside of one JSON string, with nothing behind its end.

    It tells a chunk's text from an event of several choices, where more than a text stands between start and join.
    Hot paths ask only about bytes that hold a quote.
    """
    return QUOTE not in found or _STRING.fullmatch(found) is not None


@dataclass(frozen=True, slots=True)
class RunningForm:
    """A form is what stands around the text and the token ids in all running chunks of one stream.

    start: the event's bytes up to its text. join: the bytes between its text and its token ids. Neither can be part of
    a text, but what stands between them is a text only if `is_text` says so.
    silent: the event's bytes up to the token ids where there is no text. In chats vLLM writes such chunks for tokens
    that end within a character.
    """

    start: bytes
    join: bytes
    silent: bytes

    @classmethod
    def of(cls, payload: bytes) -> RunningForm | None:
        """Returns None if the payload is not a running chunk, or not in a form that is known here."""
        match = _RUNNING.fullmatch(payload)
        if match is None:
            return None
        start, join = DATA + match["start"], match["join"]
        bare = start.removesuffix(_CONTENT)
        return cls(start, join, bare + _NO_CONTENT + join[2:] if bare != start else NEVER)

    def one(self, payload: bytes) -> tuple[bytes, bytes] | None:
        """Returns the text (the inside of a JSON string) and the token ids (`12,345`) of one event's payload.

        Returns None if the payload has another form.
        """
        head = len(self.start) - len(DATA)
        if not payload.endswith(IDS_END):
            return None
        if not payload.startswith(self.start[len(DATA) :]):
            ids = payload[len(self.silent) - len(DATA) : -4]
            return (b"", ids) if payload.startswith(self.silent[len(DATA) :]) and b"]" not in ids else None
        cut = payload.find(self.join, head)
        text, ids = payload[head:cut], payload[cut + len(self.join) : -4]
        known = cut >= 0 and b"]" not in ids and (QUOTE not in text or is_text(text))
        return (text, ids) if known else None

    def payload(self, text: bytes, ids: bytes) -> bytes:
        """Returns the payload of the event with this text (the inside of a JSON string) and these token ids."""
        return b"%b%b%b%b]}]}" % (self.start[len(DATA) :], text, self.join, ids)

    def split(self, events: bytes) -> tuple[list[bytes], bytes] | None:
        """Returns the texts (insides of JSON strings) and all token ids (`12,345`) of whole events.

        Returns None if any of the events has another form.
        """
        start, skip = self.start, len(self.start)
        if not events.endswith(END) or not events.startswith((start, self.silent)):
            return None
        parts = _after_text(self.join).split(events)  # start and text, ids, start and text, ids, … and nothing
        before = parts[:-1:2]
        texts = [part[skip:-1] for part in before if part.startswith(start)]
        known = len(texts) + before.count(start.removesuffix(_CONTENT) + b"{")
        if parts[-1] or known != len(before) or events.count(b"\n") != 2 * known or b"\r" in events:
            return None
        if not all(map(is_text, texts)):
            return None
        return texts, b",".join(filter(None, parts[1::2]))

    def start_with(self, head: dict[str, Any]) -> bytes | None:
        """Returns `start` with this head instead of the engine's; None if the engine's has more names than this one."""
        choices_at = self.start.index(_CHOICES)
        if self.start.count(b'":', 0, choices_at) != len(head):
            return None
        return DATA + orjson.dumps(head)[:-1] + self.start[choices_at:]

    @property
    def close_without_ids(self) -> bytes:
        """The bytes from the text up to the end of `choices`, for a client that did not ask for token ids."""
        return self.join.removesuffix(_IDS).removesuffix(_NO_PROMPT_IDS) + b"}]"


@lru_cache(maxsize=64)
def _after_text(join: bytes) -> re.Pattern[bytes]:
    # But for its first byte, which a silent chunk does not have; a pattern that begins with letters is searched fast.
    return re.compile(re.escape(join[1:]) + rb"([0-9,]*)\]\}\]\}\n\n")


def begins_answer(payload: bytes) -> bool:
    """Returns whether this event has a choice, with which the answer begins. Raises EngineReportedError, BadChunk.

    A first chunk may hold the token ids of a long prompt, so it is parsed only if the bytes do not show a choice.
    """
    return _A_CHOICE in payload or bool(parse(payload)["choices"])


def head_of(chunk: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a chunk that all chunks of its stream share."""
    return {name: chunk[name] for name in _HEAD if name in chunk}


def with_head(chunk: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """Returns the chunk with `head`, which is that of another stream, in the place of its own."""
    return {**head, **{name: value for name, value in chunk.items() if name not in head}}


def head_bytes(head: dict[str, Any]) -> bytes:
    """Writes the bytes with which vLLM begins a payload that has this head: all that stands before its first choice."""
    return orjson.dumps(head)[:-1] + _CHOICES


def head_in(payload: bytes) -> bytes:
    """Cuts those bytes out of a payload. Returns nothing if the payload's head is not in vLLM's form."""
    cut = payload.find(_CHOICES)
    return payload[: cut + len(_CHOICES)] if cut > 0 and payload.count(b'":', 0, cut) == len(_HEAD) else b""


def choice_of(
    text: str,
    ids: list[int],
    *,
    chat: bool,
    logprobs: dict[str, Any] | None = None,
    finish_reason: str | None = None,
    stop_reason: Any = None,
) -> dict[str, Any]:
    """Makes the one choice of a new chunk. Its keys stand in the order in which vLLM writes them."""
    choice: dict[str, Any] = {"index": 0}
    if chat:
        choice["delta"] = {"content": text} if text else {}
    else:
        choice["text"] = text
    choice |= {"logprobs": logprobs, "finish_reason": finish_reason}
    if finish_reason or not chat:
        choice["stop_reason"] = stop_reason
    if not chat:
        choice["prompt_token_ids"] = None
    choice["token_ids"] = ids
    return choice


class CompletionEdit:
    """Turns running chunks of one /v1/completions stream, as bytes, into those of the stream that they go on."""

    __slots__ = ("_join", "_silent", "_start_in", "_start_out")

    def __init__(self, head_in: bytes, head_out: bytes, *, chat: bool) -> None:
        """head_in, head_out: those of the two streams, as `head_bytes` gives them. chat: whether the chunks become
        those of a chat."""
        self._start_in = head_in + _COMPLETION_TEXT
        self._start_out = head_out + (_CHAT_TEXT if chat else _COMPLETION_TEXT)
        self._join = _CHAT_JOIN if chat else _COMPLETION_JOIN
        self._silent = head_out + (_CHAT_SILENT if chat else _COMPLETION_TEXT + _EMPTY_TEXT) + self._join

    def apply(self, payload: bytes) -> bytes | None:
        """Returns the edited payload, nothing if it says nothing, and None if it is not a running chunk."""
        start = self._start_in
        if not (payload.startswith(start) and payload.endswith(IDS_END)):
            return None
        at = payload.rfind(_COMPLETION_JOIN)
        ids_at = at + len(_COMPLETION_JOIN)
        if at < 0 or payload.find(b"]", ids_at) != len(payload) - 4:
            return None
        text, ids = payload[len(start) : at], payload[ids_at:]
        if text == _EMPTY_TEXT:
            return self._silent + ids if ids != IDS_END else b""
        return b"%b%b%b%b" % (self._start_out, text, self._join, ids)
