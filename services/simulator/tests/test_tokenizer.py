from __future__ import annotations

import pytest
from cloudach_simulator import tokenizer
from cloudach_simulator.vocabulary import EOS, IM_START, PIECES, SIZE, SPECIAL
from hypothesis import given
from hypothesis import strategies as st

text = st.text(st.characters(exclude_categories=("Cs",)))


@given(text)
def test_what_is_encoded_decodes_to_the_same(given_text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(given_text)) == given_text


@given(text)
def test_plain_text_never_becomes_a_special_token(given_text: str) -> None:
    assert not SPECIAL.keys() & set(tokenizer.encode(given_text + "<|im_end|>"))


def test_ids_stay_what_they_are() -> None:
    # Recorded: a change would break every expectation that was stored elsewhere.
    assert tokenizer.encode("What is the capital of France? 你") == [
        *(861, 310, 304, 32, 99, 97, 112, 105, 116, 97, 108, 306, 32, 70, 114, 97, 110, 99, 101),
        *(63, 32, 228, 189, 160),
    ]


def test_the_vocabulary_has_every_byte_once() -> None:
    assert PIECES[:256] == tuple(bytes([b]) for b in range(256))
    assert len(set(PIECES)) == SIZE


@pytest.mark.parametrize(
    ("ids", "bad"), [([], None), ([0, SIZE - 1], None), ([5, SIZE], SIZE), ([-1, SIZE], -1), ([10**12], 10**12)]
)
def test_ids_outside_the_vocabulary_are_found(ids: list[int], bad: int | None) -> None:
    assert tokenizer.unknown_id(ids) == bad


@pytest.mark.parametrize(
    ("prompt", "held"),
    [
        ([*b"ab\xf0\x9f"], b"ab\xf0\x9f"),
        ([*b"ab\xf0\x9f\x98\x80"], b""),
        ([IM_START, *b"x", 0xE4, 0xBD], b"x\xe4\xbd"),
        ([*b"ab", EOS], b""),
        ([], b""),
    ],
)
def test_a_prompt_that_ends_within_a_character_is_held_whole(prompt: list[int], held: bytes) -> None:
    assert tokenizer.unfinished(prompt) == held
