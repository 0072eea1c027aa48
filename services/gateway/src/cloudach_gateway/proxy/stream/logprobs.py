"""Log probabilities as /v1/completions tells them, turned into those of the stream that they go on: pure."""

from __future__ import annotations

from itertools import accumulate
from typing import Any


class Ambiguous(Exception):
    """Two of the likeliest tokens have the same text: /v1/completions tells only one of them."""


def shifted(logprobs: dict[str, Any], tokens: slice, *, characters: int) -> dict[str, Any]:
    """Those of `tokens`, with offsets into the text `characters` further on."""
    part = {name: values[tokens] for name, values in logprobs.items()}
    if part.get("text_offset"):
        part["text_offset"] = [offset + characters for offset in part["text_offset"]]
    return part


def offsets(logprobs: dict[str, Any]) -> dict[str, list[int]]:
    """Where in its text each token of a whole answer begins, as vLLM has it there.

    In a stream vLLM adds up the text that was sent, which lags behind the tokens: stop strings and characters that are
    not complete are held back.
    """
    tokens = logprobs.get("tokens")
    if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
        return {}
    return {"text_offset": list(accumulate(map(len, tokens), initial=0))[:-1]}


def as_chat(logprobs: dict[str, Any], tokens: slice, *, top: int) -> dict[str, Any]:
    """Those of `tokens` in the chat form. top: how many of the likeliest tokens are told. Raises Ambiguous."""
    entries = list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True))
    return {"content": [_entry(token, value, tops, top) for token, value, tops in entries[tokens]]}


def tokens_up_to(end: int, logprobs: dict[str, Any]) -> int:
    """How many tokens it takes to fill `end` characters."""
    length = 0
    for number, token in enumerate(logprobs["tokens"], 1):
        length += len(token)
        if length >= end:
            return number
    return len(logprobs["tokens"])


def _entry(token: str, value: float, tops: dict[str, float], top: int) -> dict[str, Any]:
    if top and _may_lack(token, value, tops, top):
        raise Ambiguous("two likely tokens of the same text")
    return {**_told(token, value), "top_logprobs": [_told(*likely) for likely in list(tops.items())[:top]]}


def _may_lack(token: str, value: float, tops: dict[str, float], top: int) -> bool:
    """Whether `tops` may have lost an entry. The engine puts the chosen token first, then the `top` likeliest, of which
    it may be one, under their texts; that of a part of a character is empty."""
    if tops.get(token) != value or len(tops) < top:
        return True
    # The chosen token may be the last of the likeliest, or there was one more.
    return len(tops) == top and "" in tops and value < min(list(tops.values())[1:], default=value)


def _told(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode("utf-8", "replace"))}
