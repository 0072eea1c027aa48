"""One stream on its way from an engine's reads to a client's connection, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from cloudach_gateway.proxy.engine.connection import Connection
from cloudach_gateway.proxy.engine.exchange import Exchange, Happened, Lane
from cloudach_gateway.proxy.stream.client_view import ClientView
from cloudach_gateway.proxy.stream.express import Express
from cloudach_gateway.proxy.stream.rewrite import StreamRewriter
from cloudach_gateway.proxy.stream.tally import Tally

from tests.support.wire import chunk


class Wire:
    """A transport: what was written, and which protocol has its bytes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.protocol: Any = None
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        """It has none."""

    def resume_reading(self) -> None:
        pass


class Stream:
    """One stream from an engine's reads to the bytes of a client's connection. short: by Express where it can."""

    def __init__(self, *, short: bool, view: ClientView | None = None) -> None:
        self.engine, self.client = Wire(), Wire()
        self.taken = 0
        self.happened: list[Happened] = []
        self.rewriter = StreamRewriter(view or ClientView("alias"), Tally())
        self.connection = Connection(lambda _: None, lambda _: None)
        self.connection.connection_made(self.engine)  # type: ignore[arg-type]
        self.engine.protocol = self.connection
        self.exchange = Exchange("here", self.connection, lambda told: self.happened.append(told[1]), events=True)
        self.connection.send(b"", self.exchange)
        lane = Lane(self.rewriter.relay, self._write, self._express) if short else None
        self.exchange.sink, self.exchange.lane = self._feed, lane

    def read(self, *reads: bytes) -> Stream:
        for data in reads:
            protocol = self.engine.protocol
            protocol.data_received(data)
            self.taken += isinstance(protocol, Express) and self.engine.protocol is protocol
        return self

    def _express(self) -> Express | None:
        shape = self.rewriter.shape
        running = self.rewriter.tally.transcript.running
        return shape and Express(shape, running, self.client, asyncio.get_running_loop().time)

    def _write(self, data: bytes) -> None:
        self.client.write(chunk(data))

    def _feed(self, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            data = self.rewriter.feed(payload)
            if data:
                self._write(data)

    @property
    def output(self) -> tuple[list[Any], bytes, list[Any], int, list[Happened]]:
        transcript = self.rewriter.tally.transcript
        said = [orjson.loads(payload) for payload in transcript.payloads()]
        for answered in said:  # a chunk without text may be kept as one with an empty one
            if answered["choices"][0].get("delta") == {}:
                answered["choices"][0]["delta"] = {"content": ""}
        events = [orjson.loads(event.removeprefix(b"data: ")) for event in sent(self.client).split(b"\n\n")[:-1]]
        return events, bytes(transcript.ids), said, transcript.count, self.happened


def sent(client: Wire) -> bytes:
    """What a client was sent, out of its HTTP chunks; fails if their sizes are wrong."""
    data, found = b"".join(client.written), []
    while data:
        size, _, data = data.partition(b"\r\n")
        body, end, data = data[: int(size, 16)], data[int(size, 16) :][:2], data[int(size, 16) + 2 :]
        assert end == b"\r\n"
        assert body.endswith(b"\n\n")
        found.append(body)
    return b"".join(found)


def http(data: bytes, *, upper: bool = False) -> bytes:
    size = b"%X" % len(data) if upper else b"%x" % len(data)
    return b"%b\r\n%b\r\n" % (size, data)
