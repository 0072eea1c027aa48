"""Decides which token comes next: a pure function of all token ids so far, in O(1) for each token by a rolling hash.

So a generation that broke off after any token goes on exactly if a new prompt gives its prompt ids and generated ids.
As in a real engine, three things are bound to one request and do not carry over to such a continuation: the choice's
index (n > 1), a `seed` under a temperature above 0, and frequency or presence penalties. Penalties see only the tokens
of their own request. A temperature without a seed changes nothing here, so that every test can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .vocabulary import EOS, IDS, PIECES, SIZE, SPECIAL, WORDS

MASK: Final = (1 << 60) - 1
MULTIPLY: Final = 0x2545F491
ADD: Final = 0x9E3779B9
_START: Final = 0x1DE1C0DE5EED
SHIFT: Final = 44
_WIDTH: Final = 1024
INDEX_MASK: Final = _WIDTH - 1


def fold(state: int, ids: Iterable[int]) -> int:
    """Returns the hash state after `ids`."""
    for token in ids:
        state = ((state ^ token) * MULTIPLY + ADD) & MASK
    return state


def start_state(ids: Iterable[int], adapter: str | None = None) -> int:
    """Returns the hash state of a whole prompt, which differs between LoRA adapters."""
    return fold(_START if adapter is None else mix(*adapter.encode()), ids)


def mix(*parts: int) -> int:
    """Returns a well-spread 60-bit number made of small ones, as a salt."""
    state = _START
    for part in parts:
        state = ((state ^ (part & MASK)) * 0x9E3779B97F4A7C15 + 1) & MASK
        state ^= state >> 31
    return state


def _spread(weighted: list[tuple[bytes | int, int]]) -> tuple[int, ...]:
    """Returns 1,024 tokens in a fixed shuffled order, each about as often as its weight says."""
    total = sum(weight for _, weight in weighted)
    table: list[int] = []
    reached = 0
    for piece, weight in weighted:
        reached += weight
        token = piece if isinstance(piece, int) else IDS[piece]
        table += [token] * (reached * _WIDTH // total - len(table))
    # 389 is coprime to 1,024, so this is a permutation, and neighbouring hashes give unlike words.
    return tuple(table[(i * 389) % _WIDTH] for i in range(_WIDTH))


# Characters in byte-sized tokens. Each byte comes from a set of its own, so the last token alone says what follows.
_EMOJI: Final = (0xF0, 0x9F, 0x98)
_CJK: Final = (0xE4, 0xBD)


def _tables() -> list[tuple[int, ...]]:
    middle = _spread(
        [
            *((f" {w}".encode(), 8) for w in WORDS),
            (b",", 140),
            (b".", 220),
            *((p, 16) for p in (b"!", b"?", b" caf\xc3\xa9", b" na\xc3\xafve", b" \xe2\x80\x93")),
            (_EMOJI[0], 30),
            (_CJK[0], 20),
        ]
    )
    opening = _spread([(w.capitalize().encode(), 1) for w in WORDS])
    sentence = _spread([*((f" {w.capitalize()}".encode(), 4) for w in WORDS), (b"\n\n", 90), (EOS, 110)])
    tables = [middle] * SIZE
    for token, piece in enumerate(PIECES):
        if token in SPECIAL or piece.endswith(b"\n"):
            tables[token] = opening
        elif piece in (b".", b"!", b"?"):
            tables[token] = sentence
    tables[_EMOJI[0]] = (_EMOJI[1],) * _WIDTH
    tables[_EMOJI[1]] = (_EMOJI[2],) * _WIDTH
    tables[_EMOJI[2]] = _spread([(b, 1) for b in range(0x80, 0x98)])
    tables[_CJK[0]] = (_CJK[1],) * _WIDTH
    tables[_CJK[1]] = _spread([(b, 1) for b in range(0xA0, 0xB0)])
    return tables


NEXT: Final = _tables()
"""For each last token, the 1,024 candidates for the next one. The hash picks one of them."""


def pick(state: int, last: int, salt: int = 0, barred: frozenset[int] = frozenset()) -> int:
    """Returns the next token. `barred` tokens (min_tokens, logit bans) are skipped in the table's order."""
    if salt:
        state = ((state ^ salt) * MULTIPLY) & MASK
        state ^= state >> 23
    index = (state >> SHIFT) & INDEX_MASK
    table = NEXT[last]
    token = table[index]
    if token in barred:
        for step in range(1, _WIDTH):
            token = table[(index + step) & INDEX_MASK]
            if token not in barred:
                break
        else:
            token = next((t for t in NEXT[0] if t not in barred), table[index])
    return token


def advance(state: int, token: int) -> int:
    """Returns the hash state after one more token."""
    return ((state ^ token) * MULTIPLY + ADD) & MASK
