from __future__ import annotations

import pytest
from cloudach_gateway.proxy.continuation.stop_strings import BoundarySearch, HeldBackText, StopStrings
from hypothesis import given
from hypothesis import strategies as st


def vllm(text: str, new: int, stops: tuple[str, ...]) -> tuple[str, int] | None:
    """vLLM 0.29's check_stop_strings: the stop string, and where it begins."""
    best: tuple[int, str, int] | None = None
    for stop in stops:
        at = text.find(stop, 1 - new - len(stop))
        if at >= 0 and (best is None or at + len(stop) < best[0]):
            best = at + len(stop), stop, at
    return None if best is None else best[1:]


texts = st.lists(st.text("ab", max_size=4), min_size=1, max_size=8)
strings = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=3, unique=True)


@given(parts=texts, stops=strings.map(tuple), data=st.data(), min_tokens=st.integers(0, 6))
def test_both_engines_together_find_what_one_would(
    parts: list[str], stops: tuple[str, ...], data: st.DataObject, min_tokens: int
) -> None:
    text, first, searched = "", None, 0
    for number, part in enumerate(parts, 1):  # one engine, token by token
        text += part
        if number <= min_tokens:
            searched = len(text)
        elif (new := len(text) - searched) and (found := vllm(text, new, stops)):
            first = number, found[0]
            break
        searched = len(text)
    kept = data.draw(st.integers(0, (first[0] - 1) if first else len(parts)))
    before, rest = "".join(parts[:kept]), parts[kept:]
    search = BoundarySearch(before, StopStrings(stops, included=True), kept=kept, min_tokens=min_tokens)
    text, second, searched = "", None, 0
    for number, part in enumerate(rest, kept + 1):  # the other engine, with what comes before it out of its sight
        text += part
        own = None
        if number <= min_tokens:
            searched = len(text)
        elif new := len(text) - searched:
            own = vllm(text, new, stops)
        searched = len(text)
        end = len(part) if own is None else own[1] + len(own[0]) - (len(text) - len(part))
        across = search.feed(part[:end], 1)
        if across is not None and search.is_first(*across, own and own[0], end):
            second = number, across[0]
        elif own is not None:
            second = number, own[0]
        if second is not None:
            break
    assert second == first


def test_how_much_of_the_text_belongs_to_the_stop_string() -> None:
    search = BoundarySearch("the en", StopStrings(("end",)), kept=2, min_tokens=0)
    assert search.feed("d of it", 1) == ("end", 1)


def test_what_lies_wholly_on_one_side_is_not_looked_for() -> None:
    search = BoundarySearch("the end", StopStrings(("end", "it")), kept=2, min_tokens=0)
    assert search.feed(" of it", 1) is None


def test_beyond_reach() -> None:
    search = BoundarySearch("the", StopStrings(("abcd",)), kept=2, min_tokens=0)
    search.feed("xy", 1)
    assert not search.passed
    search.feed("z", 1)
    assert search.passed


@pytest.mark.parametrize(("other", "first"), [(None, True), (7, True), ("b", True), ("a", False)])
def test_of_two_that_end_together_the_one_named_first_counts(other: object, first: bool) -> None:
    search = BoundarySearch("x", StopStrings(("a", "xa", "b")), kept=1, min_tokens=0)
    assert search.is_first("xa", 3, other, 3) == first
    assert search.is_first("xa", 2, other, 3)


@given(parts=st.lists(st.text(max_size=9)), stop=st.text(min_size=1, max_size=9), pending=st.text(max_size=20))
def test_text_lags_as_an_engine_lets_it(parts: list[str], stop: str, pending: str) -> None:
    stops = StopStrings((stop,))
    held_back = HeldBackText(pending[: stops.held_back], stops)
    text, out = pending[: stops.held_back], ""
    for part in parts:
        text += part
        out += held_back.feed(part)
        assert out == text[: max(0, len(text) - stops.held_back)]
    assert out + held_back.last("end") == text + "end"


def test_the_stop_string_is_left_out() -> None:
    held_back = HeldBackText("an", StopStrings(("and",)))
    assert held_back.feed("y ") == "an"
    assert held_back.last("hand", "and") == "y h"
