"""One try at one engine: it begins, may bring a first token, and ends once, with its cause.

The end lets go of all that an attempt holds: the connection, its place among the suspects, the engine's quarantine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from ...catalog import ServedModel
from ...record import AttemptRecord, Header
from ..engine.exchange import Exchange
from .cause import Cause
from .fleet import Engines, Post
from .suspects import Placement


class AttemptObserver(Protocol):
    """The request's record, from which log, metrics and traces are made."""

    def attempt_began(self, attempt: AttemptRecord) -> None:
        """Nothing has been sent yet, and `attempt.headers` may grow. The record tells later how the attempt went on."""


class PromptMeter(Protocol):
    """Hears whether an engine works on the prompt, because only then is the prompt billed."""

    def prompt_sent(self) -> None:
        """An engine has the request from now on."""

    def engine_lost(self) -> None:
        """The engine of the last `prompt_sent` has refused the request or has broken off."""


class Contender(NamedTuple):
    """The request that attempts are made for, as the engines' books know it.

    The owner is all that is remembered of a request that was lost with its engine.
    """

    headers: tuple[Header, ...]
    meter: PromptMeter
    observer: AttemptObserver
    owner: object


class Attempt:
    """Made by the Placer, which sees to it that each attempt ends. Its `record` tells observers how it goes on."""

    __slots__ = (
        "_clock",
        "_contender",
        "_engines",
        "_exchange",
        "_placement",
        "after_death",
        "cause",
        "engine",
        "in_quarantine",
        "model",
        "record",
        "upstream",
    )

    def __init__(
        self,
        engines: Engines,
        model: ServedModel,
        upstream: str,
        contender: Contender,
        clock: Callable[[], float],
        progressed: Callable[[], bool],
        *,
        in_quarantine: bool = False,
    ) -> None:
        """`progressed` tells if this attempt has brought the request beyond what may have ended an engine before.

        in_quarantine: the engine's quarantine was entered for this attempt, which leaves it.
        """
        now = clock()
        self._engines = engines
        self._contender = contender
        self._clock = clock
        self._exchange: Exchange | None = None
        self.model = model
        self.upstream = upstream
        self.engine = model.shared or upstream  # a loss counts against all engines that are behind one address
        self.cause: Cause | None = None
        self.after_death = engines.suspects.died_lately(self.engine, now)
        self.in_quarantine = in_quarantine  # other suspects wait until this attempt has progressed
        self._placement: Placement | None = engines.suspects.began(self.engine, contender.owner, progressed)
        self.record = AttemptRecord(upstream, [*contender.headers], model.dialect)
        contender.observer.attempt_began(self.record)

    @property
    def exchange(self) -> Exchange:
        """The exchange with the engine, between `send` and `end`."""
        if self._exchange is None:
            raise RuntimeError("the attempt has not been sent, or has ended")
        return self._exchange

    async def send(self, path: str, body: bytes, *, post: Post, events: bool, again: bool = False) -> Exchange:
        """Sends the request. Again: the connection was closed by the engine before it heard of the request.

        Raises Unreachable.
        """
        if self._exchange is not None:
            stale, self._exchange = self._exchange, None
            self._engines.close(stale, failed=False)
        self._exchange = await self._engines.open(
            self.model, self.upstream, path, body, headers=self.record.headers, post=post, events=events, fresh=again
        )
        self._contender.meter.prompt_sent()
        return self._exchange

    def first_token_came(self) -> None:
        """The engine's first choice or its whole answer is there."""
        self.record.first_token_came()

    def end(self, cause: Cause) -> None:
        """An attempt ends once. Raises RuntimeError the second time."""
        if self.cause is not None:
            raise RuntimeError(f"the attempt has ended before: {self.cause.value}")
        self.cause = cause
        now = self._clock()
        self.leave_quarantine()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._engines.close(exchange, failed=cause.blames_engine)
        placement, self._placement = self._placement, None
        if placement is not None:
            self._engines.suspects.ended(placement, lost=cause.is_loss, now=now)
        if cause.is_failure:
            self._contender.meter.engine_lost()
        self.record.ended(cause.label)

    # What the connection of the client tells.

    def pause(self) -> None:
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        if self._exchange is not None:
            self._exchange.resume()

    def close_connection(self) -> None:
        """Ends the engine's work at once, because the client is gone. The attempt's end follows."""
        if self._exchange is not None:
            self._exchange.close()

    # What the engines' books say.

    def leave_quarantine(self) -> None:
        """Frees the engine for the next suspect."""
        if self.in_quarantine:
            self.in_quarantine = False
            self._engines.quarantine.leave(self.engine)

    def was_only_suspect(self) -> bool:
        """Returns True if no other request had been given to the lost engine lately."""
        return self._engines.suspects.alone(self.engine, self._contender.owner, self._clock())

    def count_break(self, broke_at: float) -> int:
        """How many streams have broken at this engine within a second, this one included."""
        return self._engines.simultaneous_breaks.count(self.engine, broke_at)
