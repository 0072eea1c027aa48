"""The shortest way of a token gives the same bytes, and the same record of them, as the long way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
from cloudach_gateway.proxy.engine.connection import Connection
from cloudach_gateway.proxy.engine.exchange import Exchange, Happened, Lane
from cloudach_gateway.proxy.stream.client_view import ClientView
from cloudach_gateway.proxy.stream.collect import Collector
from cloudach_gateway.proxy.stream.express import Express, Gathering
from cloudach_gateway.proxy.stream.rewrite import StreamRewriter
from cloudach_gateway.proxy.stream.tally import Tally
from cloudach_gateway.proxy.stream.transcript import MOST_OF_ONE
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wire import STREAM_HEAD

from ..relayed import Stream, Wire, http

ID = "chatcmpl-cecb8adc-7512-45ba-adec-45f0ef39e62b"


def payload(text: str | None, *ids: int, chat: bool = True, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    said = {"delta": delta} if chat else {"text": text or ""}
    reasons = {"logprobs": None, "finish_reason": None} | ({} if chat else {"stop_reason": None})
    choice = {"index": 0} | said | reasons | more | {"token_ids": list(ids)}
    kind = "chat.completion.chunk" if chat else "text_completion"
    return orjson.dumps({"id": ID, "object": kind, "created": 1795403619, "model": "m", "choices": [choice]})


def chunk(text: str | None, *ids: int, **more: Any) -> bytes:
    return http(b"data: %b\n\n" % payload(text, *ids, **more))


BEGINNING = [STREAM_HEAD, chunk("It", 1), chunk(" is", 2)]


@pytest.mark.parametrize("chat", [True, False])
async def test_tokens_go_from_read_to_write(chat: bool) -> None:
    said = [" a", ' "quoted"\n', "é", "\\u0000", "", "}]}]}"]
    reads = [STREAM_HEAD, *(chunk(text, number, chat=chat) for number, text in enumerate(["It", " is", *said]))]
    stream = Stream(short=True).read(*reads)
    assert isinstance(stream.engine.protocol, Express)
    assert len(stream.client.written) == 8
    assert stream.taken == 6
    assert stream.output == Stream(short=False).read(*reads).output
    choices = [event["choices"][0] for event in stream.output[0]]
    assert [choice["delta"]["content"] if chat else choice["text"] for choice in choices] == ["It", " is", *said]
    assert {event["model"] for event in stream.output[0]} == {"alias"}
    assert stream.output[1] == b"0,1,2,3,4,5,6,7,"


async def test_haproxy_writes_sizes_in_capitals() -> None:
    reads = [STREAM_HEAD, *(http(b"data: %b\n\n" % payload("x" * number, number), upper=True) for number in range(20))]
    stream = Stream(short=True).read(*reads)
    assert stream.taken == 18
    assert stream.output == Stream(short=False).read(*reads).output


async def test_a_token_within_a_character_is_noted_and_says_nothing() -> None:
    reads = [*BEGINNING, chunk(None, 3), chunk(None, 4, 5), chunk("€", 6)]
    stream = Stream(short=True).read(*reads)
    assert isinstance(stream.engine.protocol, Express)
    assert len(stream.client.written) == 3
    assert stream.output == Stream(short=False).read(*reads).output
    assert stream.output[1] == b"1,2,3,4,5,6,"


async def test_a_few_in_a_read_become_one_write() -> None:
    few = chunk(" a", 3) + chunk(None, 4) + chunk("€", 5, 6) + http(b"data: %b\n\n" % payload("!", 7), upper=True)
    stream = Stream(short=True).read(*BEGINNING, few)
    assert stream.taken == 1
    assert len(stream.client.written) == 3
    assert stream.output == Stream(short=False).read(*BEGINNING, few).output
    assert stream.output[1] == b"1,2,3,4,5,6,7,"
    stream.read(chunk(".", 8) + chunk("", 9, finish_reason="stop") + http(b"data: [DONE]\n\n"))
    assert stream.engine.protocol is stream.connection
    assert stream.happened == [Happened.DONE]
    assert stream.output[1] == b"1,2,3,4,5,6,7,8,9,"


async def test_when_it_heard_something_is_known() -> None:
    stream = Stream(short=True).read(*BEGINNING)
    for data in (chunk("!", 3), chunk(None, 3)):
        before = stream.exchange.heard_at
        await asyncio.sleep(0.002)
        stream.read(data)
        assert stream.exchange.heard_at > before


async def test_more_than_a_read_of_it_is_given_back_and_taken_up_again() -> None:
    last = chunk("!", 9)
    for other in (
        [chunk(" a", 3) + chunk(" b", 4)],  # two in a read
        [last[:40], last[40:]],  # half a one
        [last[:-2], last[-2:]],
        [last + b"d", last[1:]] if last.startswith(b"d") else [last + last[:1], last[1:]],
        [http(b": a comment\n\n"), chunk("c", 5)],
        [http(b"data: %b\n\ndata: %b\n\n" % (payload("x", 6), payload(None, 7)))],  # two events in a chunk
        [http(b"data: %b\r\n\r\n" % payload("x", 6))],
        [chunk("with log probabilities", 6, logprobs={"content": []})],
        [chunk("long " * 2000, 6)],
        [chunk("no ids")],
    ):
        reads = [*BEGINNING, chunk(" at", 10), *other, chunk(" last", 11), chunk(".", 12)]
        stream = Stream(short=True).read(*reads)
        assert stream.output == Stream(short=False).read(*reads).output, other
        assert isinstance(stream.engine.protocol, Express), other


async def test_the_end_the_loss_and_the_departure_find_the_connection() -> None:
    done = Stream(short=True).read(*BEGINNING, chunk(" a", 3), http(b"data: [DONE]\n\n"))
    assert done.happened == [Happened.DONE]
    assert done.engine.protocol is done.connection
    done.read(b"0\r\n\r\n")
    assert not done.engine.aborted  # to be used again
    lost = Stream(short=True).read(*BEGINNING, chunk(" a", 3))
    lost.engine.protocol.connection_lost(None)
    assert lost.happened == [Happened.BROKE]
    assert lost.exchange.problem == "connection closed"
    left = Stream(short=True).read(*BEGINNING, chunk(" a", 3))
    left.exchange.close()
    assert left.engine.aborted


async def test_a_client_who_wants_token_ids_gets_them() -> None:
    reads = [*BEGINNING, chunk(" a", 3), chunk(None, 4)]
    stream = Stream(short=True, view=ClientView("alias", token_ids=True)).read(*reads)
    assert [event["choices"][0]["token_ids"] for event in stream.output[0]] == [[1], [2], [3], [4]]


@pytest.mark.parametrize("chat", [True, False])
async def test_a_gathered_answer_takes_the_same_way(chat: bool) -> None:
    said = ["It", " is", " a", None, "€", ' "quoted"\n', "!"]
    reads = [STREAM_HEAD, *(chunk(text, number, chat=chat) for number, text in enumerate(said))]
    engine = Wire()
    connection = Connection(lambda _: None, lambda _: None)
    connection.connection_made(engine)  # type: ignore[arg-type]
    engine.protocol = connection
    exchange = Exchange("here", connection, lambda _: None, events=True)
    connection.send(b"", exchange)
    tally = Tally()
    collector = Collector(ClientView("alias", chat=chat), tally)
    ways: list[Gathering] = []

    def shortcut() -> Gathering | None:
        if collector.form is not None and not ways:
            clock = asyncio.get_running_loop().time
            ways.append(Gathering(collector.form, tally.transcript.running, collector.texts, clock))
        return ways[0] if ways else None

    def feed(payloads: Sequence[bytes]) -> None:
        for data in payloads:
            collector.feed(data)

    exchange.sink, exchange.lane = feed, Lane(collector.relay, lambda _: None, shortcut)
    taken = 0
    for data in reads:
        protocol = engine.protocol
        protocol.data_received(data)
        taken += isinstance(protocol, Gathering) and engine.protocol is protocol
    engine.protocol.data_received(chunk(".", 7, chat=chat, finish_reason="stop"))
    assert engine.protocol is connection
    assert taken == 5
    choice = orjson.loads(collector.answer())["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    assert text == 'It is a€ "quoted"\n!.'
    assert choice["finish_reason"] == "stop"
    assert bytes(tally.transcript.ids) == b"0,1,2,3,4,5,6,7,"


texts = st.one_of(st.none(), st.text(max_size=12), st.sampled_from(['","logprobs":null', "]}]}\n\n", "data: {", "{}"]))
tokens = st.lists(st.integers(0, 200_000), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(
    said=st.lists(st.tuples(texts, tokens), min_size=1, max_size=30),
    merged=st.sets(st.integers(0, 29)),
    cuts=st.sets(st.integers(0, 9000), max_size=5),
    chat=st.booleans(),
)
def test_the_same_however_it_comes(
    said: list[tuple[str | None, list[int]]], merged: set[int], cuts: set[int], chat: bool
) -> None:
    """merged: which chunks come in a read with the one before. cuts: where the bytes are cut besides."""
    reads = [STREAM_HEAD, chunk("It", 1, chat=chat)]
    for number, (text, ids) in enumerate(said):
        data = chunk(text, *ids, chat=chat)
        if number in merged:
            reads[-1] += data
        else:
            reads.append(data)
    apart: list[bytes] = []
    at = 0
    for data in reads:
        edges = [0, *sorted(cut - at for cut in cuts if at < cut < at + len(data)), len(data)]
        apart += [data[a:b] for a, b in pairwise(edges)]
        at += len(data)

    async def both() -> None:
        assert Stream(short=True).read(*apart).output == Stream(short=False).read(b"".join(reads)).output

    asyncio.run(both())


def test_many_chunks_at_once_are_not_parsed_one_by_one() -> None:
    """As an engine sends them that does not wait: a read may have a thousand."""
    rewriter = StreamRewriter(ClientView("alias"), Tally())
    rewriter.feed(payload("It", 1))
    many = b"".join(b"data: %b\n\n" % payload(" word", number) for number in range(2000))
    assert len(many) > MOST_OF_ONE
    relayed = rewriter.relay(many)
    assert relayed is not None
    assert relayed.count(b'"content":" word"') == 2000
    assert rewriter.tally.completion_tokens == 2001
