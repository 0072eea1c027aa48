"""Learns how long Models take to start, because Retry-After promises it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from statistics import median

from cloudach_model_api import Model

from ..served import Absence, Resource, ServedModel, Why
from .entries import slept_through

_UNKNOWN_S = 30.0
_LEAST_S = 2.0
_LONGEST_S = 600.0
_NO_USE_S = 300.0  # where only an operator can help
_BLOCKED_S = 30.0  # while something stands in the way, of which nobody knows when it goes
_HOLE_S = 5.0  # between the last pod that takes requests and the next, as when a cluster replaces another


class StartTimes:
    """This keeps the last five start times of each Model. Call `learn` with every view of the Models."""

    def __init__(self) -> None:
        self._took: dict[Resource, deque[float]] = {}
        self._starting: dict[Resource, Absence] = {}

    def learn(self, models: Mapping[Resource, Model], entries: Mapping[Resource, ServedModel]) -> None:
        for own in self._took.keys() - models.keys():
            del self._took[own]
        for own, entry in entries.items():
            started, now_absent = self._starting.pop(own, None), entry.absence
            if now_absent is not None:
                # The last seconds of a start, in which it cannot be reached yet, are a part of it.
                self._starting[own] = started if started and now_absent.why is Why.NO_ENDPOINT else now_absent
                continue
            woken_s = slept_through(models[own])
            if woken_s is not None:
                self._note(own, woken_s)
            elif started is not None and started.why is Why.STARTING and started.since is not None:
                ready = models[own].status.condition("Ready")
                if ready is not None and ready.last_transition_time > started.since:
                    self._note(own, (ready.last_transition_time - started.since).total_seconds())

    def expected_s(self, own: Resource) -> float | None:
        """Returns the median time in which the Model lately became ready; None for a Model that has not started yet.

        For a Model that slept the time runs from the wish that woke it.
        """
        took = self._took.get(own)
        return median(took) if took else None

    def retry_after_s(self, own: Resource, absence: Absence, *, waited_s: float, now: datetime) -> float:
        """Returns in how many seconds the Model can probably be asked. This request has waited `waited_s` already."""
        if absence.why in (Why.OFF, Why.STUCK):
            return _NO_USE_S
        if absence.blocked:
            return _BLOCKED_S
        passed = waited_s
        if absence.why in (Why.STARTING, Why.NO_ENDPOINT) and absence.since is not None:
            passed = max(passed, (now - absence.since).total_seconds())
        expected = _HOLE_S if absence.why is Why.NO_ENDPOINT else self.expected_s(own)
        if expected is None:
            others = [seconds for took in self._took.values() for seconds in took]
            expected = median(others) if others else _UNKNOWN_S
        left = expected - passed
        if left < 0:
            left = -left  # it takes longer than it used to: as long again as it is late
        return min(_LONGEST_S, max(_LEAST_S, left))

    def _note(self, own: Resource, seconds: float) -> None:
        took = self._took.setdefault(own, deque(maxlen=5))
        if not took or took[-1] != seconds:  # each view tells of the last start again
            took.append(seconds)
