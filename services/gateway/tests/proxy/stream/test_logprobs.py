from __future__ import annotations

from typing import Any

import pytest
from cloudach_gateway.proxy.stream.logprobs import Ambiguous, as_chat, shifted, tokens_up_to

ALL = slice(None)
# As /v1/completions tells " né, yes" with logprobs=2: the chosen token is the likeliest, the second, neither.
TOLD = {
    "text_offset": [0, 3, 4],
    "token_logprobs": [-0.5, -1.5, -4.0],
    "tokens": [" né", ",", " yes"],
    "top_logprobs": [{" né": -0.5, " no": -2.0}, {",": -1.5, ".": -0.25}, {" yes": -4.0, " no": -0.5, "!": -1.0}],
}


def one(token: str, value: float, tops: dict[str, float]) -> dict[str, Any]:
    return {"text_offset": [0], "token_logprobs": [value], "tokens": [token], "top_logprobs": [tops]}


def entry(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}


def test_the_chat_form() -> None:
    assert as_chat(TOLD, ALL, top=2) == {
        "content": [
            {**entry(" né", -0.5), "top_logprobs": [entry(" né", -0.5), entry(" no", -2.0)]},
            {**entry(",", -1.5), "top_logprobs": [entry(",", -1.5), entry(".", -0.25)]},
            {**entry(" yes", -4.0), "top_logprobs": [entry(" yes", -4.0), entry(" no", -0.5)]},
        ]
    }


def test_only_some_of_the_tokens() -> None:
    assert [told["token"] for told in as_chat(TOLD, slice(1, 2), top=2)["content"]] == [","]
    assert shifted(TOLD, slice(1, 3), characters=100) == {
        "text_offset": [103, 104],
        "token_logprobs": [-1.5, -4.0],
        "tokens": [",", " yes"],
        "top_logprobs": TOLD["top_logprobs"][1:],
    }


def test_without_the_likeliest() -> None:
    told = one("a", -1.0, {"a": -1.0})
    assert as_chat(told, ALL, top=0) == {"content": [{**entry("a", -1.0), "top_logprobs": []}]}


@pytest.mark.parametrize(
    ("token", "value", "tops", "top"),
    [
        ("", -0.1, {"": -3.0}, 1),  # the value is another token's
        ("", -0.1, {"": -0.1}, 2),
        ("a", -0.1, {"a": -0.1, "": -3.0}, 3),
        ("a", -5.0, {"a": -5.0, "": -1.0}, 2),  # the second likeliest, or the third and one is missing
    ],
)
def test_an_entry_is_missing(token: str, value: float, tops: dict[str, float], top: int) -> None:
    with pytest.raises(Ambiguous):
        as_chat(one(token, value, tops), ALL, top=top)


@pytest.mark.parametrize(
    ("token", "value", "tops", "top"),
    [
        ("a", -5.0, {"a": -5.0, "b": -1.0}, 2),
        ("", -5.0, {"": -5.0, "b": -1.0, "c": -2.0}, 2),
        ("", -0.5, {"": -0.5, "b": -1.0}, 2),
        ("a", -0.5, {"a": -0.5}, 1),
        ("a", -3.0, {"a": -3.0, "b": -0.1}, 1),
    ],
)
def test_none_is_missing(token: str, value: float, tops: dict[str, float], top: int) -> None:
    (told,) = as_chat(one(token, value, tops), ALL, top=top)["content"]
    assert told["top_logprobs"] == [entry(*pair) for pair in tops.items()][:top]


@pytest.mark.parametrize(("end", "tokens"), [(1, 1), (3, 1), (4, 2), (5, 3), (8, 3), (9, 3)])
def test_tokens_by_their_text(end: int, tokens: int) -> None:
    assert tokens_up_to(end, TOLD) == tokens
