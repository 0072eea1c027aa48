from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_wire.sse import EventSplitter, EventTooLarge

STREAM = (
    b'data: {"a":1}\n\n'
    b": a comment\n\n"
    b'data:{"no":"space"}\r\n\r\n'
    b"event: x\ndata: first\ndata: second\n\n"
    b'id: 7\rdata: {"cr":"only"}\r\r'
    b"\n\n\n"
    b'data: {"text":"\xc3\xa9\xf0\x9f\x8c\x8a"}\n\n'
    b"retry: 10\n\n"
    b"data: [DONE]\n\n"
)
PAYLOADS = [
    b'{"a":1}',
    b'{"no":"space"}',
    b"first\nsecond",
    b'{"cr":"only"}',
    b'{"text":"\xc3\xa9\xf0\x9f\x8c\x8a"}',
    b"[DONE]",
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_any_split_of_the_bytes_gives_the_same_events(cuts: list[int]) -> None:
    splitter = EventSplitter()
    edges = [0, *sorted(cuts), len(STREAM)]
    found = [p for a, b in itertools.pairwise(edges) for p in splitter.feed(STREAM[a:b])]
    assert found == PAYLOADS


def test_byte_by_byte() -> None:
    splitter = EventSplitter()
    assert [p for i in range(len(STREAM)) for p in splitter.feed(STREAM[i : i + 1])] == PAYLOADS


def test_an_unfinished_event_waits_for_its_end() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b'data: {"a"') == []
    assert splitter.feed(b":1}\n\n") == [b'{"a":1}']


def test_a_megabyte_event_in_small_pieces() -> None:
    splitter = EventSplitter()
    event = b"data: " + b"x" * 1_000_000 + b"\n\n"
    found = [p for i in range(0, len(event), 100) for p in splitter.feed(event[i : i + 100])]
    assert found == [b"x" * 1_000_000]


def test_an_endless_event_is_refused() -> None:
    splitter = EventSplitter(limit=1000)
    with pytest.raises(EventTooLarge):
        for _ in range(100):
            splitter.feed(b"data: " + b"x" * 100)
