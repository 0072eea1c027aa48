"""The simulator's fixed vocabulary: every byte, a few special tokens, and common pieces of English, JSON and markup."""

from __future__ import annotations

from typing import Final

_TEXT: Final = """
the a of to and in is that it for as with on by from this are be was or an at not which can has have will but one
all its their more when there each some what about time only into other two first new over these most may after
also through before between under where how many such much here very well even same small large long light river
water stone wind cloud rain sun moon star field forest mountain valley ocean island road bridge city house garden
window door room table paper letter word story song voice sound color green blue red white black gold silver warm
cold quick slow bright dark quiet open close early late young old good simple clear strong gentle careful steady
common single whole near far high low deep still again always often never perhaps because while until since both
find make take give keep hold carry bring send move turn follow lead begin end change grow build learn teach read
write speak listen watch look see hear feel think know remember ask answer call name count measure weigh compare
choose decide plan work play walk run rest sleep wake travel return arrive leave cross climb fall rise shine
system model data number point line part side form kind way place case fact idea question reason result value
example problem order process state level step test unit table list text token stream request answer server client
people friend family child teacher student doctor farmer baker sailor writer reader morning evening night day year
"""
WORDS: Final[tuple[str, ...]] = tuple(dict.fromkeys(_TEXT.split()))

_MARKUP: Final = [
    *("\n", "\n\n", ". ", ", ", "- ", "1. ", "2. ", "  ", "    "),
    *('{"', '"}', '":"', '": "', '": ', '":', '","', '", "', '",', '"]', '["', "[]", "{}", "}}", "[{", "}]", "null"),
    *("true", "false", "name", "arguments", "<tool_call>", "</tool_call>", "user", "assistant", "system", "tool"),
    *("é", "ü", "ñ", " –", "…", "’", " café", " naïve"),
]

ENDOFTEXT: Final = 256
IM_START: Final = 257
IM_END: Final = 258
TOOLS: Final = 259
END_TOOLS: Final = 260
SPECIAL: Final = {
    ENDOFTEXT: b"<|endoftext|>",
    IM_START: b"<|im_start|>",
    IM_END: b"<|im_end|>",
    TOOLS: b"<|tools|>",
    END_TOOLS: b"<|end_tools|>",
}
EOS: Final = IM_END
"""The token at an answer's end. As in many chat models, it also ends a turn."""


def _pieces() -> list[bytes]:
    texts = [*_MARKUP, *(f" {w}" for w in WORDS), *(f" {w.capitalize()}" for w in WORDS)]
    texts += [*(w.capitalize() for w in WORDS), *WORDS]
    single_bytes = [bytes([b]) for b in range(256)]
    taken = set(single_bytes)
    pieces = [p for p in dict.fromkeys(t.encode() for t in texts) if p not in taken]
    return [*single_bytes, *SPECIAL.values(), *pieces]


PIECES: Final[tuple[bytes, ...]] = tuple(_pieces())
"""The bytes of each token id."""
SIZE: Final = len(PIECES)
IDS: Final[dict[bytes, int]] = {piece: i for i, piece in enumerate(PIECES) if i not in SPECIAL}
"""The token id of bytes. Plain text never gives special tokens."""


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


SIMPLE: Final[tuple[bool, ...]] = tuple(i not in SPECIAL and _is_text(piece) for i, piece in enumerate(PIECES))
"""For each token id, whether it consists of whole characters and is not special."""
