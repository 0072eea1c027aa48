"""Engines as a gateway has them, a request that runs there, and the consumer of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cloudach_gateway.catalog import ServedModel
from cloudach_gateway.proxy.conversation import Conversation
from cloudach_gateway.proxy.engine.exchange import Lane
from cloudach_gateway.proxy.engine.routes import COMPLETIONS
from cloudach_gateway.proxy.placing.failures import PlacementFailed
from cloudach_gateway.proxy.placing.first_answer import Call
from cloudach_gateway.proxy.placing.fleet import Engines
from cloudach_gateway.proxy.placing.placer import EngineRequest, Placer
from cloudach_gateway.proxy.placing.watch import Watch
from cloudach_gateway.proxy.stream.tally import Tally
from cloudach_gateway.proxy.stream.transcript import Transcript
from cloudach_gateway.record import AttemptRecord, RequestRecord
from cloudach_gateway.settings import Failover, Model, Timeouts

from tests.support.waiting import until_async
from tests.support.wire import LAST_CHUNK, STREAM_HEAD, chunk

PATH = COMPLETIONS.path
CALL = Call(COMPLETIONS, b"{}", events=True)


def token(number: int, *, end: str = "null") -> bytes:
    return chunk(
        b'data: {"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":" %d",'
        b'"logprobs":null,"finish_reason":%b,"stop_reason":null,"prompt_token_ids":%b,"token_ids":[%d]}]}\n\n'
        % (number, end.encode(), b"[1,2]" if number == 0 else b"null", number)
    )


DONE = chunk(b"data: [DONE]\n\n") + LAST_CHUNK


REFUSED = b"HTTP/1.1 500 No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


DEAD = b'{"error":{"message":"EngineCore encountered an issue.","type":"InternalServerError","code":500}}'


class Run:
    """Engines as a gateway has them, and what is left in their books."""

    def __init__(self, *upstreams: Any, **timeouts: float) -> None:
        self.engines = Engines(connect_s=20.0)
        self.engines.start()
        urls = tuple(getattr(upstream, "url", upstream) for upstream in upstreams)
        self.model = ServedModel.from_settings(Model(id="m", upstreams=urls, max_model_len=1000))
        limits = {"first_token_s": 30.0, "between_tokens_s": 30.0, "total_s": 60.0, "heartbeat_s": 1.0}
        self.timeouts = Timeouts(**{**limits, **timeouts})  # type: ignore[arg-type]
        fields = {"model": "m", "prompt": [1, 2], "max_tokens": 50, "temperature": 0, "stream": True}
        self.record = RequestRecord("POST", PATH)
        self.request = EngineRequest(self.model, COMPLETIONS, b"{}", ((b"x-request-id", b"req"),), fields=fields)

    def placer(self) -> Placer:
        return Placer(self.engines, self.timeouts, self.request, Watch(self.timeouts, None), Tally(), self.record)

    def conversation(self, observer: Any) -> Conversation:
        failover = Failover(spread_s=0.02, budget_s=20)
        return Conversation(self.engines, self.timeouts, failover, self.request, observer, Tally())

    @property
    def left(self) -> dict[str, Any]:
        engines = self.engines
        return {
            "running": {url: n for url, n in engines._balancer._running.items() if n},
            "suspects": [url for url in self.model.upstreams if engines.suspects.any_suspect(url)],
            "in quarantine": [url for url in self.model.upstreams if url not in engines.quarantine.empty([url])],
            "waiting": list(engines.quarantine._waiting),
        }

    async def nothing_is_left(self, *, idle: int | None = None) -> None:
        await asyncio.sleep(0.02)
        assert self.left == {"running": {}, "suspects": [], "in quarantine": [], "waiting": []}
        if idle is not None:
            await until_async(lambda: self.engines.connections == idle)
        self.engines.stop()


class Heard:
    """A consumer that keeps what it gets."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self.ids_shown = self.takes_whole = False
        self.lane: Lane | None = None
        self.got: list[bytes] = []
        self.moves: list[str] = []
        self.attempts: list[AttemptRecord] = []
        self.waits: list[str] = []

    async def begin(self) -> None:
        await asyncio.sleep(0)

    def feed(self, payloads: list[bytes]) -> None:
        self.got += payloads
        for payload in payloads:
            self.transcript.recent.append(payload)
            ids = payload.rpartition(b'"token_ids":[')[2].split(b"]")[0]
            self.transcript.ids.extend(ids + b"," if ids else b"")
            if b'"prompt_token_ids":[' in payload:
                self.transcript.prompt_ids = [1, 2]

    def start_over(self) -> bool:
        return False

    def attempt_began(self, attempt: AttemptRecord) -> None:
        self.attempts.append(attempt)

    def waited(self, kind: str, began_at: float) -> None:
        self.waits.append(kind)

    def retried(self, cause: str) -> None:
        self.moves.append(f"retried: {cause}")

    def failed_over(self, cause: str, *, after_tokens: int, took_s: float) -> None:
        self.moves.append(f"failed over after {after_tokens}")


async def failure(placer: Placer, *, events: bool = True) -> PlacementFailed:
    with placer, pytest.raises(PlacementFailed) as caught:
        await placer.place(Call(COMPLETIONS, b"{}", events=events))
    return caught.value


async def run_one(run: Run) -> str:
    with run.placer() as placer:
        return (await placer.place(CALL)).upstream


Play = Callable[[Any], Any]


def breaks_after(tokens: int) -> Play:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD, *(token(n) for n in range(tokens)))

    return play
