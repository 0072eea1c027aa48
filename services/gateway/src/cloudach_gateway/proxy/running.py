"""The form of a stream's running chunks: what stands around their text and token ids, the same in each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

DATA = b"data: "
END = b"]}]}\n\n"
"""How the event of a running chunk ends, after its token ids."""

# A running chunk as vLLM writes it: head, choice, text, then this up to the token ids.
_RUNNING = re.compile(
    rb'(?P<start>\{[^\[]*,"choices":\[\{"index":0,(?:"delta":\{"content":|"text":)")(?:[^"\\]|\\.)*'
    rb'(?P<join>"\}?,"logprobs":null,"finish_reason":null(?:,"stop_reason":null)?(?:,"prompt_token_ids":null)?'
    rb',"token_ids":\[)'
    rb"[0-9,]*\]\}\]\}"
)


@dataclass(frozen=True, slots=True)
class RunningForm:
    """start: of an event, up to its text. join: between its text and its token ids.

    No text can hold either: they have quotes, which a JSON string escapes.
    """

    start: bytes
    join: bytes

    @classmethod
    def of(cls, payload: bytes) -> RunningForm | None:
        """None: not a running chunk, or not in a form known here."""
        match = _RUNNING.fullmatch(payload)
        return None if match is None else cls(DATA + match["start"], match["join"])

    def one(self, payload: bytes) -> tuple[bytes, bytes] | None:
        """The same of one event's payload."""
        head = len(self.start) - len(DATA)
        if not payload.endswith(b"]}]}") or not payload.startswith(self.start[len(DATA) :]):
            return None
        cut = payload.find(self.join, head)
        ids = payload[cut + len(self.join) : -4]
        return None if cut < 0 or b"]" in ids else (payload[head:cut], ids)

    def split(self, events: bytes) -> tuple[list[bytes], bytes] | None:
        """The texts (inside of JSON strings) and all token ids (`12,345`) of whole events; None if any has another
        form."""
        if not events.startswith(self.start) or not events.endswith(END):
            return None
        parts = _after_text(self.join).split(events)  # start and text, ids, start and text, ids, … and nothing
        start, skip = self.start, len(self.start)
        texts = [part[skip:] for part in parts[:-1:2] if part.startswith(start)]
        if parts[-1] or 2 * len(texts) + 1 != len(parts) or events.count(b"\n") != 2 * len(texts) or b"\r" in events:
            return None
        return texts, b",".join(filter(None, parts[1::2]))


@lru_cache(maxsize=64)
def _after_text(join: bytes) -> re.Pattern[bytes]:
    return re.compile(re.escape(join) + rb"([0-9,]*)\]\}\]\}\n\n")
