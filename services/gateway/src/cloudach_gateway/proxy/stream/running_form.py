"""The form of a stream's running chunks: what stands around their text and token ids, the same in each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

DATA = b"data: "
_CONTENT = b'{"content":"'
_NOTHING = b"{}"
_NEVER = b"data: \n"  # no event begins so
END = b"]}]}\n\n"
"""How the event of a running chunk ends, after its token ids."""
MOST_TEXTS = 1000
"""How many texts of a gathered answer wait before they are read, so that its size is known in time."""

# A running chunk as vLLM writes it: head, choice, text, then this up to the token ids.
_RUNNING = re.compile(
    rb'(?P<start>\{[^\[]*,"choices":\[\{"index":0,(?:"delta":\{"content":|"text":)")(?:[^"\\]++|\\.)*+'
    rb'(?P<join>"\}?,"logprobs":null,"finish_reason":null(?:,"stop_reason":null)?(?:,"prompt_token_ids":null)?'
    rb',"token_ids":\[)'
    rb"[0-9,]*\]\}\]\}"
)
QUOTE = ord('"')  # bytes are searched for a number several times as fast as for other bytes
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


def is_text(found: bytes) -> bool:
    """Whether this is the inside of one JSON string, and nothing behind its end.

    Between a chunk's beginning and its token ids there may be the rest of a choice and the beginning of another one:
    an event may hold several choices. Hot paths ask only about what has a quote.
    """
    return QUOTE not in found or _STRING.fullmatch(found) is not None


@dataclass(frozen=True, slots=True)
class RunningForm:
    """start: of an event, up to its text. join: between its text and its token ids.

    No text can hold either: they have quotes, which a JSON string escapes. But what stands between the two is a text
    only if `is_text` says so. silent: what a chunk without text has before
    its token ids; so vLLM tells in chats of a token that ends within a character.
    """

    start: bytes
    join: bytes
    silent: bytes

    @classmethod
    def of(cls, payload: bytes) -> RunningForm | None:
        """None: not a running chunk, or not in a form known here."""
        match = _RUNNING.fullmatch(payload)
        if match is None:
            return None
        start, join = DATA + match["start"], match["join"]
        bare = start.removesuffix(_CONTENT)
        return cls(start, join, bare + _NOTHING + join[2:] if bare != start else _NEVER)

    def one(self, payload: bytes) -> tuple[bytes, bytes] | None:
        """The same of one event's payload."""
        head = len(self.start) - len(DATA)
        if not payload.endswith(b"]}]}"):
            return None
        if not payload.startswith(self.start[len(DATA) :]):
            ids = payload[len(self.silent) - len(DATA) : -4]
            return (b"", ids) if payload.startswith(self.silent[len(DATA) :]) and b"]" not in ids else None
        cut = payload.find(self.join, head)
        text, ids = payload[head:cut], payload[cut + len(self.join) : -4]
        known = cut >= 0 and b"]" not in ids and (QUOTE not in text or is_text(text))
        return (text, ids) if known else None

    def payload(self, text: bytes, ids: bytes) -> bytes:
        """Of the event with this text (inside of a JSON string) and these token ids."""
        return b"%b%b%b%b]}]}" % (self.start[len(DATA) :], text, self.join, ids)

    def split(self, events: bytes) -> tuple[list[bytes], bytes] | None:
        """The texts (inside of JSON strings) and all token ids (`12,345`) of whole events; None if any has another
        form."""
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


@lru_cache(maxsize=64)
def _after_text(join: bytes) -> re.Pattern[bytes]:
    # But for its first byte, which a silent chunk does not have; a pattern that begins with letters is searched fast.
    return re.compile(re.escape(join[1:]) + rb"([0-9,]*)\]\}\]\}\n\n")
