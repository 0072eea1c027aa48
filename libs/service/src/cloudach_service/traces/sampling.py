"""Decides at its beginning if a trace is sampled. Pure."""

from __future__ import annotations

from typing import NamedTuple

from .w3c import Parent

_LOW_64 = 2**64 - 1


class Sampling(NamedTuple):
    """ratio: the part of traces that is sampled, 0 to 1. follows_parent: a caller's own decision is taken over."""

    ratio: float = 1.0
    follows_parent: bool = True

    def samples(self, trace_id: int, parent: Parent | None) -> bool:
        """Returns the same for all services with one ratio, because it depends on the trace's id alone.

        The rule is that of the SDK's TraceIdRatioBased: the id's lower 64 bits are compared with the ratio.
        """
        if parent is not None and self.follows_parent:
            return parent.sampled
        return (trace_id & _LOW_64) < round(self.ratio * 2**64)
