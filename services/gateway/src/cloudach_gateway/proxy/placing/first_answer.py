"""The beginning of an attempt: the request is sent, and the engine's first choice or its whole answer awaited."""

from __future__ import annotations

from typing import NamedTuple

from ...settings import Timeouts
from ..engine.answer_headers import encoding, media_type
from ..engine.chunk import BadChunk, EngineReportedError
from ..engine.exchange import Exchange, Happened
from ..engine.routes import Route
from ..engine.whole_answer import NoAnswer, whole_answer
from ..stream.form import begins_answer
from . import failures
from .attempt import Attempt
from .fleet import Unreachable
from .watch import Watch

_REFUSAL_S = 5.0
_MOST_BEFORE_A_CHOICE = 16 * 1024 * 1024  # bytes
_OF_AN_EVENT = 64  # bytes that it takes besides its own


class Call(NamedTuple):
    """A call is what one attempt asks of an engine. whole_will_do: a whole answer is welcome in place of events."""

    route: Route
    body: bytes
    events: bool
    whole_will_do: bool = False


class FirstAnswer:
    """After `come`, the exchange's `pending` has a first choice, or its `answer` is there."""

    def __init__(self, attempt: Attempt, call: Call, watch: Watch, timeouts: Timeouts) -> None:
        self._attempt = attempt
        self._call = call
        self._watch = watch
        self._patience_s = timeouts.first_token_s if call.events else timeouts.total_s

    async def come(self) -> None:
        """Raises PlacementFailed, UpstreamTimeout."""
        after_death = self._attempt.after_death
        exchange = await self._sent()
        happened = await self._begun(exchange)
        if happened is Happened.BROKE and exchange.resend:
            # The engine had closed this idle connection, which says nothing about the engine. But where nobody listens
            # any more, there was an engine a moment ago, and it has died.
            exchange = await self._sent(again=True, died=not after_death)
            happened = await self._begun(exchange)
        if happened is Happened.BROKE:
            raise failures.lost(exchange, after_death=after_death)
        if exchange.status != 200:
            raise failures.refused(exchange, self._call.route, events=self._call.events)
        whole = happened is Happened.WHOLE
        try:
            if whole:
                self._read_whole(exchange)
            elif not await self._first_choice(exchange):
                raise failures.lost(exchange, after_death=after_death)
        except (EngineReportedError, NoAnswer, BadChunk) as problem:
            raise failures.unusable(exchange, problem, whole=whole) from problem
        self._attempt.first_token_came()

    async def _sent(self, *, again: bool = False, died: bool = False) -> Exchange:
        """Died: what it means if no connection can be made. Raises PlacementFailed."""
        call = self._call
        try:
            exchange = await self._attempt.send(
                call.route.path, call.body, post=self._watch.post, events=call.events, again=again
            )
        except Unreachable as error:
            raise failures.unreachable(str(error), died=died) from error
        self._due = self._watch.clock() + self._patience_s
        return exchange

    async def _first_choice(self, exchange: Exchange) -> bool:
        """Waits until the answer begins, beyond events that have nothing of it. False: it was lost before.

        Raises EngineReportedError, BadChunk, NoAnswer.
        """
        looked_at = held = 0
        while exchange.pending or not exchange.done:
            new = exchange.pending[looked_at:]
            if any(map(begins_answer, new)):
                return True
            looked_at = len(exchange.pending)
            if exchange.done:
                raise NoAnswer("a stream without any choice")
            held += sum(map(len, new)) + _OF_AN_EVENT * len(new)
            if held > _MOST_BEFORE_A_CHOICE:
                raise BadChunk("no choice among a stream's first events")
            if self._watch.clock() >= self._due:  # `_begun` may always find another event
                raise self._late(exchange)
            if await self._begun(exchange) is Happened.BROKE:
                return False
        return False

    async def _begun(self, exchange: Exchange) -> Happened:
        while True:
            refused = exchange.status not in (0, 200)
            until = min(self._due, exchange.heard_at + _REFUSAL_S) if refused else self._due
            happened = await self._watch.event(exchange, until, begun=False)
            if happened is not None:
                return happened
            now = self._watch.clock()
            if refused and now >= exchange.heard_at + _REFUSAL_S:
                return Happened.WHOLE  # its text does not come
            if now >= self._due:
                raise self._late(exchange)

    def _late(self, exchange: Exchange) -> failures.PlacementFailed:
        return failures.late(exchange, self._watch.clock() - exchange.began_at)

    def _read_whole(self, exchange: Exchange) -> None:
        """Raises EngineReportedError, BadChunk, NoAnswer, PlacementFailed."""
        call = self._call
        whole_will_do = call.whole_will_do or not call.events
        encoded = encoding(exchange.headers)
        try:
            if encoded:
                raise BadChunk("an answer that is compressed, though nobody asked for that")
            exchange.answer = whole_answer(exchange.body, holds=call.route.holds)
            if not whole_will_do:
                raise BadChunk("the whole answer in one piece")
        except BadChunk as problem:
            if whole_will_do and not encoded and media_type(exchange.headers) in ("application/json", ""):
                raise
            raise failures.another_kind(exchange, problem, events=call.events) from problem
