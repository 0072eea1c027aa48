"""Requests of many kinds whose answers are known: greedy ones, first answered by one simulator that nobody disturbs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from tests.support.crowd import Answer, Ask, Crowd
from tests.support.replicas import MODEL
from tests.support.stack import start_sim


def greedy(count: int, *, tokens: tuple[int, int], seed: str = "") -> tuple[list[Ask], list[Answer]]:
    """So many requests, nine of ten streams, and their undisturbed answers.

    tokens: the shortest and the longest, but for those with a stop string, which end earlier.
    """
    plain = list(itertools.islice(_plain(tokens, seed), count))
    with start_sim(flat=True, tokens_per_chunk=50, model=MODEL) as sim:

        def undisturbed(asks: Sequence[Ask]) -> list[Answer]:
            with Crowd(f"{sim.url}/v1", "none", [_told_usage(ask) for ask in asks]) as crowd:
                return crowd.answers()

        texts = [answer.text for answer in undisturbed(plain)]
        asks = [
            Ask(ask.path, {**ask.body, "stop": [_part(text), "\n\n\n"]}) if number % 5 == 4 else ask
            for number, (ask, text) in enumerate(zip(plain, texts, strict=True))
        ]
        return asks, undisturbed(asks)


def _plain(tokens: tuple[int, int], seed: str) -> Iterator[Ask]:
    shortest, longest = tokens
    for number in itertools.count():
        body: dict[str, Any] = {
            "model": MODEL,
            "temperature": 0,
            "max_tokens": shortest + number * 7 % (longest - shortest + 1),
            "ignore_eos": number % 4 != 0,  # one of four may end by itself
            "stream": number % 10 != 9,
        }
        if body["stream"] and number % 3 == 0:
            body["stream_options"] = {"include_usage": True}
        text = f"{seed}Tell me of the sea {number}"
        if number % 4 == 3:
            yield Ask("completions", body | {"prompt": text})
        else:
            yield Ask("chat", body | {"messages": [{"role": "user", "content": text}]})


def _told_usage(ask: Ask) -> Ask:
    """A bare engine does not say by itself what a stream has used."""
    if not ask.body["stream"]:
        return ask
    return Ask(ask.path, {**ask.body, "stream_options": {"include_usage": True}})


def _part(text: str) -> str:
    """Something from the second half of it that is not there before."""
    for at in range(len(text) // 2, len(text)):
        part = text[at : at + 9]
        if text.find(part) == at:
            return part
    raise AssertionError("nothing but repetitions")
