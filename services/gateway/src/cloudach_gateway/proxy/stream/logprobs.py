"""Log probabilities: those of /v1/completions, turned into the form of the stream that they continue. Pure."""

from __future__ import annotations

from itertools import accumulate
from typing import Any


class Ambiguous(Exception):
    """Two of the likeliest tokens have the same text, so /v1/completions tells only one of them."""


def shifted(logprobs: dict[str, Any], tokens: slice, *, characters: int) -> dict[str, Any]:
    """Returns the log probabilities of `tokens`, with their offsets into the text raised by `characters`."""
    part = {name: values[tokens] for name, values in logprobs.items()}
    if part.get("text_offset"):
        part["text_offset"] = [offset + characters for offset in part["text_offset"]]
    return part


def offsets(logprobs: dict[str, Any]) -> dict[str, list[int]]:
    """Returns where each token begins in the text, as vLLM tells it in a whole answer.

    In a stream vLLM tells other offsets. They count the text that was sent, which lags behind the tokens, because vLLM
    holds back incomplete characters and what may be a stop string.
    """
    tokens = logprobs.get("tokens")
    if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
        return {}
    return {"text_offset": list(accumulate(map(len, tokens), initial=0))[:-1]}


def as_chat(logprobs: dict[str, Any], tokens: slice, *, top: int) -> dict[str, Any]:
    """Returns the log probabilities of `tokens` in the form of chats. Raises Ambiguous.

    top: how many of the likeliest tokens the client asked for.
    """
    entries = list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True))
    return {"content": [_entry(token, value, tops, top) for token, value, tops in entries[tokens]]}


def tokens_up_to(end: int, logprobs: dict[str, Any]) -> int:
    """Returns how many tokens it takes to fill `end` characters."""
    length = 0
    for number, token in enumerate(logprobs["tokens"], 1):
        length += len(token)
        if length >= end:
            return number
    return len(logprobs["tokens"])


def _entry(token: str, value: float, tops: dict[str, float], top: int) -> dict[str, Any]:
    if top and _may_lack(token, value, tops, top):
        raise Ambiguous("two likely tokens of the same text")
    return {
        **_token_entry(token, value),
        "top_logprobs": [_token_entry(*likely) for likely in list(tops.items())[:top]],
    }


def _may_lack(token: str, value: float, tops: dict[str, float], top: int) -> bool:
    """Returns whether `tops` may have lost an entry, because its keys are texts and two tokens had the same text.

    The engine names the chosen token first, and then the `top` likeliest, which may include it. A token that is part of
    a character has an empty text.
    """
    if tops.get(token) != value or len(tops) < top:
        return True
    # The chosen token may be the last of the likeliest, or there was one more.
    return len(tops) == top and "" in tops and value < min(list(tops.values())[1:], default=value)


def _token_entry(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode("utf-8", "replace"))}
