"""Every wait before an engine is a turn: for a Model that wakes, for a pod, in quarantine, between two attempts.

There is one way to wait: with heart-beats, until a deadline, and looking again at each piece of news.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from .watch import Watch

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)


class Gate(Protocol[Found_co]):
    """A gate stands between a request and an engine."""

    def look(self) -> Found_co | None:
        """Returns what the request waits for, None while it is not there. Raises GatewayError if waiting is in vain."""

    def news(self, look_again: Callable[[], None]) -> AbstractContextManager[None]:
        """While the request waits, `look_again` is called whenever the next look may find something else."""


class Turn:
    """The waits of one request."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    async def at(self, gate: Gate[Found], until: float) -> Found | None:
        """Returns what the gate lets the request have; None if there was nothing until then, in the loop's time.

        Raises what the gate raises, and UpstreamTimeout.
        """
        found = gate.look()
        if found is not None:
            return found
        with gate.news(self._watch.look_again):
            return await self._watch.found(gate.look, until)

    async def pause(self, seconds: float) -> None:
        """A wait for nothing but time, as between two attempts. Raises UpstreamTimeout."""
        await self._watch.sleep(seconds)
