"""Limits how many connections a process takes.

A process that has no file descriptor left resets its clients without a word. So it takes fewer connections than it has
descriptors for. A few more connections are spare: they get answers about health, and a refusal of all else.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import resource
import time

from .. import metrics

_log = logging.getLogger("cloudach.gateway")

SPARE = 64
"""How many connections are taken beyond the limit, so that health checks are answered."""

_SPARE_HEAD_S = 3.0
_OWN_FILES = 512  # descriptors for listeners, Redis, logs, and engines that are asked beside requests
_SAY_EVERY_S = 10.0


class Place(enum.Enum):
    SERVED = 1
    HEALTH_ONLY = 2
    NONE = 3


class Door:
    """Counts a process's connections. health_paths: the paths that are answered on a spare connection."""

    spare_head_s = _SPARE_HEAD_S

    def __init__(self, most: int, health_paths: frozenset[str]) -> None:
        self.most = most
        self.health_paths = health_paths
        self.open = 0
        self.one_left = asyncio.Event()
        self._refused = 0
        self._said_at = -_SAY_EVERY_S

    def enter(self) -> Place:
        """Gives a new connection its place. Call `leave` when it has ended, whatever its place was."""
        self.open += 1
        metrics.CONNECTIONS.inc()
        if self.open <= self.most:
            return Place.SERVED
        if self.open <= self.most + SPARE:
            return Place.HEALTH_ONLY
        self.refused()
        return Place.NONE

    def leave(self) -> None:
        self.open -= 1
        self.one_left.set()
        metrics.CONNECTIONS.dec()

    def refused(self) -> None:
        """Counts a connection that was not served, and says so in the log, every 10 s at most."""
        self._refused += 1
        metrics.CONNECTIONS_REFUSED.inc()
        now = time.monotonic()
        if now - self._said_at >= _SAY_EVERY_S:
            self._said_at = now
            _log.warning("too many connections", extra={"open": self.open, "most": self.most, "refused": self._refused})
            self._refused = 0


def most_connections(wanted: int) -> int:
    """Returns `wanted`, or fewer if there are too few file descriptors. A stream takes two, one towards its engine."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    room = max(1, (files - _OWN_FILES - SPARE) // 2)
    if room < wanted:
        _log.warning(
            "the limit of open files allows fewer connections than the settings",
            extra={"wanted": wanted, "most": room, "descriptors": files},
        )
    return min(wanted, room)
