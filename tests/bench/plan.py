"""How much of everything a run measures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

KINDS = ("memory", "paced", "flat", "short", "long", "whole", "burst", "blocks")


@dataclass(frozen=True, slots=True)
class Plan:
    """The default is what docs/benchmarks.md shows."""

    kinds: tuple[str, ...] = KINDS
    repeats: int = 5
    """Interleaved rounds; tables show their medians."""
    streams: tuple[int, ...] = (1, 64, 256, 1000)
    """Paced streams that run at once, ascending."""
    usual_streams: int = 256
    """Of `streams`, what CPU per chunk is told for, or the most below it; also those of the burst."""
    open_streams: int = 1000
    """Streams of which memory is told."""
    rate: float = 50.0
    """Tokens a second of each paced stream."""
    window_s: float = 1.5
    """One measurement of CPU."""
    usual_window_s: float = 3.0
    """The one that CPU per paced chunk is told from: the kernel counts user time in steps of 10 ms."""
    box_s: float = 6.0
    """A loaded window ends then, also if it does not hold `least_chunks` or `least_requests`."""
    grace_s: float = 4.0
    """After which paced streams that should have ended are cut."""
    linger_s: float = 1.5
    """How long requests that run flat out may go on after the window."""
    open_s: float = 20.0
    """How long it may take until all `open_streams` are open."""
    settle_s: float = 0.3
    """Between a load's begin and its window."""
    probes_s: float = 2.0
    """How long further streams are begun, for their time to first token."""
    ramp_s: float = 1.0
    """Over which paced streams begin, for 256 of them; others in proportion."""
    flat_streams: int = 32
    flat_tokens: int = 1000
    """Tokens of a stream that runs flat out."""
    block: int = 32
    """Chunks that the engine writes at once where streams run flat out in blocks; else it writes each by itself."""
    long_streams: int = 8
    long_tokens: int = 256
    requests_at_once: int = 32
    """Short requests at a time."""
    answer_tokens: int = 16
    """Tokens of an answer that is not streamed."""
    least_chunks: int = 20_000
    least_requests: int = 200
    """A loaded window goes on until it holds as many."""

    @property
    def cost_streams(self) -> int:
        """The paced streams that CPU per chunk is told for."""
        return max((count for count in self.streams if count <= self.usual_streams), default=min(self.streams))

    def window_of(self, streams: int) -> float:
        """Seconds."""
        return self.usual_window_s if streams == self.cost_streams else self.window_s

    def ramp_of(self, streams: int) -> float:
        """Seconds."""
        return self.ramp_s * streams / 256


QUICK = Plan(
    repeats=1,
    streams=(16,),
    usual_streams=16,
    open_streams=40,
    window_s=0.3,
    usual_window_s=0.3,
    settle_s=0.1,
    probes_s=0.3,
    box_s=30.0,
    grace_s=30.0,
    open_s=60.0,
    flat_streams=8,
    flat_tokens=200,
    requests_at_once=8,
    least_chunks=500,
    least_requests=30,
)

WARM_UP = dataclasses.replace(
    QUICK, window_s=0.1, settle_s=0.0, flat_tokens=50, long_streams=2, least_chunks=100, least_requests=20
)
