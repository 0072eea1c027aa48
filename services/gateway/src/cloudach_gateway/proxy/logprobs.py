"""Log probabilities as /v1/completions tells them, turned into those of the stream that they go on: pure."""

from __future__ import annotations

from typing import Any


class Ambiguous(Exception):
    """Two of the likeliest tokens have the same text: /v1/completions tells only one of them."""


def shifted(logprobs: dict[str, Any], *, skip: int, characters: int) -> dict[str, Any]:
    """Without the first `skip` tokens, and with offsets into the text as `characters` further on."""
    rest = {name: values[skip:] for name, values in logprobs.items()}
    if rest.get("text_offset"):
        rest["text_offset"] = [offset + characters for offset in rest["text_offset"]]
    return rest


def as_chat(logprobs: dict[str, Any], *, skip: int, top: int) -> dict[str, Any]:
    """The chat form, without the first `skip` tokens. top: how many of the likeliest tokens are told.

    Raises Ambiguous.
    """
    entries = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    return {"content": [_entry(token, value, tops, top) for token, value, tops in list(entries)[skip:]]}


def _entry(token: str, value: float, tops: dict[str, float], top: int) -> dict[str, Any]:
    if top:
        _refuse_ambiguous(value, tops, top)
    return {**_told(token, value), "top_logprobs": [_told(*likely) for likely in list(tops.items())[:top]]}


def _told(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode("utf-8", "replace"))}


def _refuse_ambiguous(value: float, tops: dict[str, float], top: int) -> None:
    """The engine gives the chosen token first, then the `top` likeliest, of which it may be one, by their texts."""
    among_them = len(tops) == 1 or value >= min(list(tops.values())[1:])
    if len(tops) < top + (not among_them):
        raise Ambiguous("two likely tokens of the same text")
