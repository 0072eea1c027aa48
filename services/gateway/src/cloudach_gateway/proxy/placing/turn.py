"""Every wait before an engine is a turn: for a Model that wakes, for a pod, in quarantine, between two attempts.

There is one way to wait: with heart-beats, until a deadline, and looking again at each piece of news.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from .watch import Watch

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)


class Gate(Protocol[Found_co]):
    """A gate stands between a request and an engine."""

    @property
    def kind(self) -> str:
        """The name of this kind of wait in traces and metrics."""

    def look(self) -> Found_co | None:
        """Returns what the request waits for, None while it is not there. Raises GatewayError if waiting is in vain."""

    def news(self, look_again: Callable[[], None]) -> AbstractContextManager[None]:
        """While the request waits, `look_again` is called whenever the next look may find something else."""


class TurnObserver(Protocol):
    """The request's record hears of its waits."""

    def waited(self, kind: str, began_at: float) -> None:
        """A wait has ended now that began at `began_at`, in seconds of `time.perf_counter`."""


class Turn:
    """All waits of one request go through its turn."""

    def __init__(self, watch: Watch, observer: TurnObserver) -> None:
        self._watch = watch
        self._observer = observer

    async def at(self, gate: Gate[Found], until: float) -> Found | None:
        """Returns what the gate lets the request have; None if there was nothing until then, in the loop's time.

        Raises what the gate raises, and UpstreamTimeout.
        """
        found = gate.look()
        if found is not None:
            return found
        began_at = time.perf_counter()
        try:
            with gate.news(self._watch.look_again):
                return await self._watch.found(gate.look, until)
        finally:
            self._observer.waited(gate.kind, began_at)

    async def pause(self, seconds: float) -> None:
        """A wait for nothing but time, as between two attempts. Raises UpstreamTimeout."""
        began_at = time.perf_counter()
        try:
            await self._watch.sleep(seconds)
        finally:
            self._observer.waited("pause", began_at)
