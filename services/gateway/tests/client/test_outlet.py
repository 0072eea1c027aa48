"""What leaves through the outlet, to a client on a real socket and to a tap; and clients that do not read."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from cloudach_gateway.client.connection import CONNECTION
from cloudach_gateway.client.dialect import ClientDialect
from cloudach_gateway.client.envelope import Envelope
from cloudach_gateway.client.request_headers import bearer_key
from cloudach_gateway.client.sink import Outlet
from cloudach_gateway.errors import GatewayError, ModelNotReady, Overloaded
from cloudach_gateway.proxy.listening import SlowReader

from .conftest import Serve

ASK = b"POST /v1/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Copy:
    """A tap."""

    def __init__(self) -> None:
        self.data = b""
        self.whole = False

    def wrote(self, data: bytes) -> None:
        self.data += data

    def ended(self) -> None:
        self.whole = True


def body_of(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return body
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return found


@pytest.mark.parametrize("tapped", [True, False])
@pytest.mark.parametrize("way", ["stream", "failed", "whole"])
async def test_a_tap_gets_what_the_client_reads(serve: Serve, tapped: bool, way: str) -> None:
    copy = Copy()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        tap = copy if tapped else None
        with Outlet(scope, send, on_lost=lambda: None, slow_reader_s=5, tap=tap) as outlet:
            if way == "whole":
                await outlet.whole(b'{"a":1}')
                return
            await outlet.beat()
            outlet.write(b"data: 1\n\n")
            outlet.framed.write(b"9\r\ndata: 2\n\n\r\na\r\ndata: 33\n\n\r\n")  # as `Express` writes them
            if way == "failed":
                await outlet.fail(ModelNotReady("Asleep.", retry_after_s=1))
            else:
                await outlet.finish(b"data: [DONE]\n\n")

    async with serve(application=application) as served:
        body = body_of(await served.ask(ASK))
    if way == "whole":
        assert body == b'{"a":1}'
    else:
        begun, last = b": keep-alive\n\ndata: 1\n\ndata: 2\n\ndata: 33\n\n", body.rpartition(b"data: ")[2]
        assert body.startswith(begun)
        if way == "failed":
            assert orjson.loads(last)["error"]["param"] == "model"
        else:
            assert last == b"[DONE]\n\n"
    assert (copy.data, copy.whole) == ((body, True) if tapped else (b"", False))


class Connection:
    """A client's connection of which only the news count."""

    closed = full = False
    unsent = 0
    watcher: Any = None

    def __init__(self) -> None:
        self.aborted = False

    def write_chunk(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def outlet_of(connection: Connection, send: Any, **others: Any) -> Outlet:
    scope = {"extensions": {CONNECTION: connection}}
    return Outlet(scope, send, **{"on_lost": lambda: None, "slow_reader_s": 0.05, **others})


def test_without_a_tap_a_token_costs_no_call() -> None:
    connection = Connection()
    assert outlet_of(connection, None).write == connection.write_chunk


@pytest.mark.parametrize("way", ["finish", "fail", "whole"])
async def test_a_client_that_does_not_read_is_given_up(way: str) -> None:
    async def send(message: Any) -> None:
        await asyncio.sleep(30)

    with outlet_of(Connection(), send) as outlet:
        outlet.paused()
        last = Overloaded("No.", retry_after_s=1) if way == "fail" else b"{}"
        with pytest.raises(SlowReader):
            await getattr(outlet, way)(last)


def test_a_client_that_goes_away_ends_its_request() -> None:
    told: list[str] = []
    connection = Connection()
    with outlet_of(connection, None, on_lost=lambda: told.append("request")) as outlet:
        outlet.on_news(lambda paused: None, lambda: told.append("engine"))
        connection.watcher.lost()
        assert told == ["engine", "request"], "at once, because there is nowhere to write to"
    assert connection.watcher is None


async def test_another_api_has_errors_and_heartbeats_of_its_own(serve: Serve) -> None:
    def frame(error: GatewayError) -> bytes:
        return b"event: error\ndata: %b\n\n" % orjson.dumps({"type": "error", "message": error.message})

    other = ClientDialect(
        key=bearer_key,
        error_body=lambda error: orjson.dumps({"type": "error", "message": error.message}),
        error_frame=frame,
        heartbeat=b"event: ping\n\n",
    )

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with Outlet(scope, send, on_lost=lambda: None, slow_reader_s=5, dialect=other) as outlet:
            if scope["path"] == "/late":
                await outlet.beat()
                await outlet.fail(Overloaded("Full.", retry_after_s=1))
            else:
                raise Overloaded("Full.", retry_after_s=1)

    async with serve(application=Envelope(application, other)) as served:
        early = await served.ask(ASK)
        late = body_of(await served.ask(ASK.replace(b"/v1/x", b"/late")))
    assert early.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in early
    assert orjson.loads(body_of(early)) == {"type": "error", "message": "Full."}
    assert late == b'event: ping\n\nevent: error\ndata: {"type":"error","message":"Full."}\n\n'
