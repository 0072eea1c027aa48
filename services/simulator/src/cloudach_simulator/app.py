"""The simulator behind any HTTP server. It chooses route, refusal or run; adapters give it requests and sinks."""

from __future__ import annotations

import asyncio
import hmac
import time
import traceback
import uuid
from collections.abc import Iterable, Mapping

import orjson

from . import admin, errors, info
from .answer import StreamAnswer, WholeAnswer
from .config import SimConfig
from .errors import Refusal
from .faults import NOTHING, Arsenal, BadFault, Plan, parse
from .faulty import FaultyStream, FaultyWhole, SplitSink, strike
from .json_body import read_json
from .ledger import Entry, Ledger
from .pacer import Pacer
from .request import Ask, read
from .run import Pace, Run, Sink, StreamRun, WholeRun
from .spans import Times, llm_requests
from .traces import Traces

JSON = b"application/json"
_GUARDED = ("/v1", "/v2", "/inference", "/cohere", "/sim/")
"""The headers of vLLM's answers, and of the simulator's own."""
_GENERATE = frozenset({"/v1/chat/completions", "/v1/completions"})


def _of_a_web_page(headers: Mapping[bytes, bytes]) -> bool:
    """Refuses browsers, because any page that a developer has open could send requests to this simulator."""
    return b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none"


_OF_TRACES = ("traceparent", "tracestate", "baggage")


class Simulator:
    """One simulated engine."""

    def __init__(self, config: SimConfig, loop: asyncio.AbstractEventLoop, traces: Traces | None = None) -> None:
        self.config = config
        self._traces = traces
        self.loop = loop
        self.ledger = Ledger()
        self.arsenal = Arsenal(config.fault_seed)
        self.dead = False
        self.draining = False
        self.started = int(time.time())
        self._limits = config.limits()
        self._pacer = Pacer(loop, config.jitter, config.spread)
        self._runs: set[Run] = set()
        self._one_ended = asyncio.Event()
        if config.fault:
            self.arsenal.arm(config.fault)

    def handle(self, method: str, target: str, headers: Mapping[bytes, bytes], body: bytes, sink: Sink) -> Run | None:
        """Answers one request. A generation is returned as a run, which the caller aborts when the client goes."""
        path, _, query = target.partition("?")
        sink.request_id = headers.get(b"x-request-id") or str(uuid.uuid4()).encode()
        if self.config.root_path and path.startswith(self.config.root_path + "/"):
            path = path[len(self.config.root_path) :]
        try:
            if method != "OPTIONS" and path.startswith(_GUARDED) and not self._admitted(headers):
                sink.reply(401, JSON, b'{"error":"Unauthorized"}')
            elif path.startswith("/sim/") and _of_a_web_page(headers):
                sink.reply(403, JSON, b'{"error":"The routes below /sim/ are not for web pages."}')
            elif path.startswith("/sim/"):
                admin.handle(self, method, path, query, body, sink)
            elif path in _GENERATE and method == "POST":
                return self._generate(path, headers, body, sink)
            else:
                info.handle(self, method, path, headers, body, sink)
        except Refusal as refusal:
            self.ledger.refuse()
            sink.reply(refusal.status, JSON, orjson.dumps(refusal.body))
        except BadFault as fault:
            sink.reply(400, JSON, orjson.dumps(errors.envelope(str(fault), "BadRequestError", "fault", 400)))
        except Exception as error:
            # A bug of the simulator looks like an engine's, and is logged.
            traceback.print_exc()
            body = orjson.dumps(errors.envelope(str(error), "InternalServerError", None, 500))
            sink.reply(500, JSON, body)
        return None

    def engine_died(self) -> None:
        """Ends all running requests with the error frame, and refuses all others until a reset."""
        self.dead = True
        for run in tuple(self._runs):
            run.break_off()

    def strike(self, plan: Plan) -> int:
        """Has the plan's fault happen now to all streams that have sent a token. Returns how many these are."""
        begun = [run for run in self._runs if run.answer.generated and not run.held]
        self._end(begun, plan)
        return len(begun)

    def wake(self, steps: int | None) -> int:
        """Lets stalled requests go on by so many steps, or for good. Returns how many these are."""
        stalled = [run for run in self._runs if run.held]
        for run in stalled:
            if steps is None or run.answer.finished:
                run.rest()  # a stall may have an end of its own
                run.wake()
            else:
                run.emit(steps)
        return len(stalled)

    async def drain(self, patience_s: float, end: Plan) -> None:
        """Refuses new requests. Those that still run after `patience_s` end as `end` says."""
        self.draining = True
        try:
            async with asyncio.timeout(patience_s):
                while self._runs:
                    self._one_ended.clear()
                    await self._one_ended.wait()
        except TimeoutError:
            self._end(tuple(self._runs), end)

    def _end(self, runs: Iterable[Run], plan: Plan) -> None:
        for run in runs:
            if not run.done:
                strike(run, plan, self.engine_died, may_exit=self.config.allow_exit)

    def reset(self) -> None:
        """Forgets faults, counts and the engine's death. Running requests go on."""
        self.dead = False
        self.arsenal.clear()
        self.ledger.reset()

    def _admitted(self, headers: Mapping[bytes, bytes]) -> bool:
        if not self.config.api_keys:
            return True
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        return any(hmac.compare_digest(key, known.encode("latin-1")) for known in self.config.api_keys)

    def _generate(self, path: str, headers: Mapping[bytes, bytes], body: bytes, sink: Sink) -> Run | None:
        parsed = read_json(headers, body)
        wanted = headers.get(b"x-sim-fault")
        if wanted is None and isinstance(parsed, dict):
            field = parsed.get("sim_fault")
            wanted = field.encode() if isinstance(field, str) else None
        user = parsed.get("user") if isinstance(parsed, dict) else None
        plan = parse(wanted.decode("latin-1")) if wanted is not None else self.arsenal.strike(user) or NOTHING
        if plan.before is not None:
            self._refuse_before(plan, sink)
            return None
        ask = read(path, parsed, self._limits)
        if self.draining:
            raise errors.shutting_down()
        if self.dead:
            raise errors.engine_dead()
        ask.interval = max(ask.interval, self.config.tokens_per_chunk)
        ask.prompt_details = self.config.prompt_tokens_details
        if ask.request_id and b"x-request-id" not in headers:
            sink.request_id = ask.request_id.encode("latin-1", "replace")
        trace = {name: headers[name.encode()].decode("latin-1") for name in _OF_TRACES if name.encode() in headers}
        pace = self._pace(ask, headers, plan)
        run = self._run(ask, sink.request_id.decode("latin-1"), plan, sink, path, pace, trace)
        self._runs.add(run)
        run.begin()
        return None if run.done else run

    def _refuse_before(self, plan: Plan, sink: Sink) -> None:
        self.ledger.refuse()
        if plan.before == "refuse":
            sink.cut(reset=True)
        elif plan.before == "http":
            text = {500: "Internal Server Error", 429: "Too Many Requests", 503: "Service Unavailable"}.get(
                plan.status, f"Simulated {plan.status}"
            )
            if plan.json_body:
                kind = "InternalServerError" if plan.status >= 500 else "BadRequestError"
                body = orjson.dumps(errors.envelope(text, kind, None, plan.status))
                sink.reply(plan.status, JSON, body)
            else:
                sink.reply(plan.status, b"text/plain; charset=utf-8", text.encode())

    def _pace(self, ask: Ask, headers: Mapping[bytes, bytes], plan: Plan) -> Pace:
        rate = self.config.rate
        asked = headers.get(b"x-sim-rate")
        if asked is not None:
            try:
                rate = max(0.0, float(asked))
            except ValueError:
                raise BadFault("x-sim-rate is not a number") from None
        return Pace(rate, (self.config.ttft_ms + plan.prefill_ms) / 1000, ask.interval, self.config.burst)

    def _run(
        self, ask: Ask, request_id: str, plan: Plan, sink: Sink, path: str, pace: Pace, trace: dict[str, str]
    ) -> Run:
        if plan.split:
            sink = SplitSink(sink, plan, self.loop.call_soon)
        ticker = self._pacer.ticker(pace.interval) if pace.interval else None
        began = time.time()
        created = int(began)
        serial = 0

        def ended(outcome: str) -> None:
            self._runs.discard(run)
            self._one_ended.set()
            self.ledger.close(serial, outcome)
            if self._traces is not None and not run.died:
                times = Times(began, run.first_at, time.time())
                spans = llm_requests(answer, trace.get("traceparent"), times, self._traces.sampling)
                if spans:
                    self._traces.queue.put(lambda: spans)

        answer: StreamAnswer | WholeAnswer
        run: StreamRun | WholeRun
        if ask.stream:
            answer = StreamAnswer(ask, request_id, created)
            stream = StreamRun if plan is NOTHING else FaultyStream
            run = stream(answer, self.loop, sink, pace, ticker, ended)
        else:
            answer = WholeAnswer(ask, request_id, created)
            whole = WholeRun if plan is NOTHING else FaultyWhole
            run = whole(answer, self.loop, sink, pace, ticker, ended)
        if isinstance(run, FaultyStream | FaultyWhole):
            run.plan = plan
            run.engine_died = self.engine_died
            run.may_exit = self.config.allow_exit
        fault = plan.cut if plan.cut else ("odd" if plan is not NOTHING else None)
        serial = self.ledger.open(
            Entry(
                request_id,
                path,
                ask.model,
                ask.stream,
                answer.prompt_tokens,
                answer,
                fault=fault,
                cache_salt=ask.cache_salt,
                trace=trace,
            )
        )
        return run
