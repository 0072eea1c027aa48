"""Streams with any number of choices: the short ways give the bytes and the counts of the slow one, which parses each
event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson
import pytest
from cloudach_gateway.proxy.continuation.kinds import CHAT
from cloudach_gateway.proxy.continuation.plan import CannotContinue, plan
from cloudach_gateway.proxy.engine.connection import Connection
from cloudach_gateway.proxy.engine.exchange import Exchange, Lane
from cloudach_gateway.proxy.stream.client_view import ClientView, UsageForm
from cloudach_gateway.proxy.stream.collect import Collector
from cloudach_gateway.proxy.stream.express import Gathering
from cloudach_gateway.proxy.stream.rewrite import StreamRewriter
from cloudach_gateway.proxy.stream.tally import Tally
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.wire import STREAM_HEAD

from ..relayed import Stream, Wire, http, sent

ENGINE = "engine's own name"
ALIAS = "alias"
PROMPT = [11, 12, 13]


@dataclass(frozen=True)
class Said:
    """What one choice's event says. text: None where its tokens end within a character."""

    text: str | None
    ids: tuple[int, ...]
    logprobs: bool = False
    shown: str = ""  # as reasoning instead of as text


@dataclass(frozen=True)
class Situation:
    """order: whose turn it is; together: numbers of events that have their choice in one event with the one before."""

    chat: bool
    n: int
    prompts: int
    said: list[list[Said]]
    order: list[int]
    together: frozenset[int] = frozenset()
    usage: UsageForm = UsageForm.LAST_CHOICE
    ids_shown: bool = False
    usage_at_the_end: bool = True

    @property
    def view(self) -> ClientView:
        return ClientView(
            ALIAS,
            usage=self.usage,
            token_ids=self.ids_shown,
            answers_per_prompt=self.n,
            choices=self.n * self.prompts,
            chat=self.chat,
        )

    def payloads(self) -> list[bytes]:
        """As vLLM writes them."""
        found: list[dict[str, Any]] = []
        if self.chat:
            found = [self._role(index) for index in range(self.n)]
        left = [list(events) for events in self.said]
        counts = [0] * len(left)
        turns = [*self.order, *(index for index, events in enumerate(left) for _ in events)]
        for number, index in enumerate(turns):
            if not left[index]:
                continue
            event = left[index].pop(0)
            first = not counts[index]
            counts[index] += len(event.ids)
            choice = self._choice(index, event, first=first, last=not left[index])
            before = found[-1]["choices"] if found else []
            if number in self.together and before and index not in {other["index"] for other in before}:
                before.append(choice)
                if self.usage is UsageForm.EVERY_CHUNK:
                    found[-1].pop("usage", None)
                continue
            usage = {"usage": _usage(len(PROMPT), counts[index])} if self.usage is UsageForm.EVERY_CHUNK else {}
            found.append({**self._head(), "choices": [choice], **usage})
        if self.usage_at_the_end:
            usage = {"usage": _usage(len(PROMPT) * self.prompts, sum(counts))}
            found.append({**self._head(), "choices": [], **usage})
        return [orjson.dumps(chunk) for chunk in found]

    def _head(self) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {"id": "cmpl-7", "object": kind, "created": 1795403619, "model": ENGINE}

    def _role(self, index: int) -> dict[str, Any]:
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        usage = {"usage": _usage(len(PROMPT), 0)} if self.usage is UsageForm.EVERY_CHUNK else {}
        return {**self._head(), "choices": [choice], **usage, "prompt_token_ids": PROMPT, "prompt_text": None}

    def _choice(self, index: int, event: Said, *, first: bool, last: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index}
        if self.chat:
            choice["delta"] = {"reasoning": event.shown} if event.shown else {}
            choice["delta"] |= {} if event.text is None else {"content": event.text}
        else:
            choice["text"] = event.text or ""
        choice["logprobs"] = self._logprobs(event) if event.logprobs else None
        choice["finish_reason"] = "stop" if last else None
        if last or not self.chat:
            choice["stop_reason"] = None
        if not self.chat:
            choice["prompt_token_ids"] = PROMPT if first else None
        return {**choice, "token_ids": list(event.ids)}

    def _logprobs(self, event: Said) -> dict[str, Any]:
        if self.chat:
            return {"content": [{"token": str(token), "logprob": -1.5} for token in event.ids]}
        return {"text_offset": [0 for _ in event.ids], "tokens": [str(token) for token in event.ids]}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def reads(events: Sequence[bytes], merged: set[int], cuts: set[int]) -> list[bytes]:
    """merged: which events come in a read with the one before. cuts: where the bytes are cut besides."""
    whole = [STREAM_HEAD]
    for number, event in enumerate(events):
        data = http(b"data: %b\n\n" % event, upper=bool(number % 2))
        if number in merged:
            whole[-1] += data
        else:
            whole.append(data)
    apart: list[bytes] = []
    at = 0
    for data in whole:
        edges = [0, *sorted(cut - at for cut in cuts if at < cut < at + len(data)), len(data)]
        apart += [data[a:b] for a, b in pairwise(edges)]
        at += len(data)
    return apart


def counts(events: Sequence[bytes], prompts_of: int) -> tuple[int, int]:
    """Prompt and completion tokens by the events' own token ids."""
    prompts: dict[int, int] = {}
    tokens = 0
    for event in events:
        chunk = orjson.loads(event)
        if chunk.get("prompt_token_ids"):
            prompts[0] = len(chunk["prompt_token_ids"])
        for choice in chunk["choices"]:
            tokens += len(choice.get("token_ids", []))
            if choice.get("prompt_token_ids"):
                prompts[choice["index"] // prompts_of] = len(choice["prompt_token_ids"])
    return sum(prompts.values()), tokens


texts = st.one_of(
    st.text(max_size=8),
    st.none(),
    st.sampled_from(['","logprobs":null', "]}]}\n\n", "data: {", "{}", '"', '\\"', '"},"logprobs":null,"x":"', "\\"]),
)
tokens = st.lists(st.integers(0, 200_000), min_size=1, max_size=3).map(tuple)
events_said = st.builds(
    Said, texts, tokens, st.sampled_from([False] * 9 + [True]), st.sampled_from([""] * 9 + ["hm", 'a"b'])
)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    chat = draw(st.booleans())
    n = draw(st.integers(1, 3))
    prompts = 1 if chat else draw(st.integers(1, 3))
    said = [draw(st.lists(events_said, min_size=1, max_size=9)) for _ in range(n * prompts)]
    return Situation(
        chat=chat,
        n=n,
        prompts=prompts,
        said=said,
        order=draw(st.lists(st.integers(0, n * prompts - 1), max_size=30)),
        together=draw(st.frozensets(st.integers(0, 30), max_size=2)),
        usage=draw(st.sampled_from(UsageForm)),
        ids_shown=draw(st.booleans()),
        usage_at_the_end=draw(st.booleans()),
    )


cuts = st.sets(st.integers(0, 9000), max_size=5)
merges = st.sets(st.integers(0, 40))
# The entry of the issue that this test came with: choice 0 ends, choice 1 runs, both in one read.
ENDS_BESIDE_ANOTHER = Situation(
    chat=False,
    n=1,
    prompts=2,
    said=[[Said("a", (1,)), Said("b", (2,)), Said("c", (3,))], [Said("x", (4,)), Said("y", (5, 6)), Said("z", (7,))]],
    order=[0, 1, 0, 0, 1, 1],
)

# One choice has ended, and its last chunk waits for the usage; chunks of the other one are taken the short ways.
GOES_ON_BEHIND_ANOTHER = Situation(
    chat=False,
    n=2,
    prompts=1,
    said=[[Said(text, (number,)) for number, text in enumerate("abcdefgh")], [Said("x", (9,))]],
    order=[0, 0, 0, 1, 0, 0, 0],
)
# Events with two choices, of which the second one runs.
TWO_IN_ONE = Situation(
    chat=True,
    n=2,
    prompts=1,
    said=[[Said(text, (number,)) for number, text in enumerate("abcdef")] for _ in range(2)],
    order=[0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
    together=frozenset({4, 6, 10}),
)

# One choice ends in the event in which the other one begins.
ENDS_WITHIN_ANOTHERS = Situation(
    chat=True,
    n=2,
    prompts=1,
    said=[[Said(text, (number,)) for number, text in enumerate("abcd")], [Said("x", (8,)), Said("y", (9,))]],
    order=[0, 0, 0, 0, 1],
    together=frozenset({4}),
)


@settings(max_examples=400, deadline=None)
@example(situation=ENDS_WITHIN_ANOTHERS, merged=set(), cut=set(), left_after=100)
@example(situation=ENDS_WITHIN_ANOTHERS, merged={5}, cut=set(), left_after=100)
@example(situation=GOES_ON_BEHIND_ANOTHER, merged=set(), cut=set(), left_after=100)
@example(situation=GOES_ON_BEHIND_ANOTHER, merged=set(range(5, 40)), cut=set(), left_after=100)
@example(situation=TWO_IN_ONE, merged=set(), cut=set(), left_after=100)
@example(situation=TWO_IN_ONE, merged=set(range(4, 40)), cut=set(), left_after=100)
@example(situation=ENDS_BESIDE_ANOTHER, merged={4}, cut=set(), left_after=100)
@example(situation=ENDS_BESIDE_ANOTHER, merged={4}, cut=set(), left_after=5)
@given(situation=situations(), merged=merges, cut=cuts, left_after=st.integers(0, 100))
def test_streams(situation: Situation, merged: set[int], cut: set[int], left_after: int) -> None:
    """left_after: after how many events the client goes away, if there are as many."""
    found = situation.payloads()
    events = found[:left_after]
    slow = StreamRewriter(situation.view, Tally())
    frames = [slow.feed(event) for event in events]

    async def short() -> Stream:
        return Stream(short=True, view=situation.view).read(*reads(events, merged, cut))

    quick = asyncio.run(short())
    tally = quick.rewriter.tally
    bytes_sent = sent(quick.client)
    assert bytes_sent == b"".join(frames)
    assert tally.so_far() == slow.tally.so_far()
    assert tally.transcript.ids == slow.tally.transcript.ids
    assert tally.so_far()[:2] == counts(events, situation.n)
    assert quick.rewriter.finish() == slow.finish()
    said = [orjson.loads(frame.removeprefix(b"data: ")) for frame in bytes_sent.split(b"\n\n")[:-1]]
    assert all(chunk["model"] == ALIAS for chunk in said)
    assert all("usage" in chunk for chunk in said) or situation.usage is not UsageForm.EXTRA_CHUNK
    named = [name for chunk in said for holder in (chunk, *chunk["choices"]) for name in holder if "token_ids" in name]
    assert situation.ids_shown or named == []


@settings(max_examples=200, deadline=None)
@example(situation=TWO_IN_ONE, merged=set(), cut=set())
@example(situation=TWO_IN_ONE, merged=set(range(4, 40)), cut=set())
@example(situation=ENDS_BESIDE_ANOTHER, merged={4}, cut=set())
@given(situation=situations(), merged=merges, cut=cuts)
def test_gathered_answers(situation: Situation, merged: set[int], cut: set[int]) -> None:
    events = situation.payloads()
    slow, quick = Gathered(situation), Gathered(situation)
    for event in events:
        slow.collector.feed(json.dumps(orjson.loads(event)).encode())  # with spaces it is in no form that is known
    asyncio.run(quick.read(reads(events, merged, cut)))
    assert quick.collector.answer() == slow.collector.answer()
    assert quick.tally.so_far() == slow.tally.so_far()
    assert quick.tally.so_far()[:2] == counts(events, situation.n)
    assert quick.tally.transcript.ids == slow.tally.transcript.ids


class Gathered:
    """An answer that is put together from what an engine's connection reads."""

    def __init__(self, situation: Situation) -> None:
        self.tally = Tally()
        self.collector = Collector(situation.view, self.tally)

    async def read(self, data: list[bytes]) -> None:
        engine = Wire()
        connection = Connection(lambda _: None, lambda _: None)
        connection.connection_made(engine)  # type: ignore[arg-type]
        engine.protocol = connection
        exchange = Exchange("here", connection, lambda _: None, events=True)
        connection.send(b"", exchange)
        exchange.sink = self._feed
        exchange.lane = Lane(self.collector.relay, lambda _: None, self._shortcut)
        for piece in data:
            engine.protocol.data_received(piece)
        assert not exchange.problem

    def _feed(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            self.collector.feed(payload)

    def _shortcut(self) -> Gathering | None:
        form = self.collector.form
        clock = asyncio.get_running_loop().time
        return form and Gathering(form, self.tally.transcript.running, self.collector.texts, clock)


def test_an_engine_that_names_no_token_ids_counts_by_choice() -> None:
    """It states on each chunk what that chunk's choice has used until then, of that choice's prompt."""
    tally = Tally()
    rewriter = StreamRewriter(ClientView(ALIAS, usage=UsageForm.EVERY_CHUNK, answers_per_prompt=2), tally)
    for index, completion in ((0, 1), (2, 1), (1, 5), (0, 2)):
        choice = {"index": index, "text": "x", "finish_reason": None}
        usage = _usage(3 if index < 2 else 4, completion)
        rewriter.feed(orjson.dumps({"model": "m", "choices": [choice], "usage": usage}))
    assert tally.so_far() == (7, 8, 0)


def test_nothing_is_left_to_generate_once_all_have_ended_however_long_ago() -> None:
    """An engine that is lost before its [DONE], or never says it, breaks no such answer."""
    tally = Tally()
    rewriter = StreamRewriter(ClientView(ALIAS, answers_per_prompt=2), tally)
    told = [(0, None), (0, "stop"), *[(1, None)] * 80, (1, "length")]
    fields = {"model": "m", "messages": [{"role": "user", "content": "?"}], "n": 2}
    for number, (index, reason) in enumerate(told):
        choice = {"index": index, "delta": {"content": "x"}, "finish_reason": reason, "token_ids": [number]}
        rewriter.feed(orjson.dumps({"id": "c", "model": "m", "choices": [choice]}))
        if number == 40:
            with pytest.raises(CannotContinue):
                plan(CHAT, fields, tally.transcript)
    assert plan(CHAT, fields, tally.transcript).body is None


@pytest.mark.parametrize(
    ("stated", "counted"),
    [
        ([], 6),
        ([(0, 1)], 6),  # at its beginning only
        ([(0, 1), (1, 1)], 6),
        ([(5, 7)], 7),  # of the whole request, at its end only
        ([(4, 4), (5, 5)], 9),  # of each choice, at its end
        ([(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 5)], 9),
    ],
)
def test_an_engine_that_tells_little(stated: list[tuple[int, int]], counted: int) -> None:
    """stated: which of six chunks, in turns of two choices, state usage, and what. Others count as a token each."""
    tally = Tally(by_chunk=True)
    rewriter = StreamRewriter(ClientView(ALIAS, answers_per_prompt=2), tally)
    for number in range(6):
        choice = {"index": number % 2, "text": "x", "finish_reason": "stop" if number > 3 else None}
        usage = {"usage": _usage(3, dict(stated)[number])} if number in dict(stated) else {}
        rewriter.feed(orjson.dumps({"model": "m", "choices": [choice], **usage}))
    assert tally.so_far() == (3 if stated else 0, counted, 0)
