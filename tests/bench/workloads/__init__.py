"""What is done to one contender in one round. A workload returns its figures; a failed request raises BadAnswer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from tests.bench.plan import Plan
from tests.bench.results import Figures

from .held import RATE, held_open
from .load import Subject
from .loaded import flat_out, long_streams, short_streams, whole_answers
from .paced import paced

FLAT_OUT, SHORT_STREAMS, LONG_STREAMS, WHOLE_ANSWERS = "flat out", "short streams", "long streams", "whole answers"
HELD_OPEN, BURST, BLOCKS, REDUCED = "held open", "burst", "flat out in blocks", "paced, fewer"


@dataclass(frozen=True, slots=True)
class Workload:
    """One of them, under the name that results carry."""

    name: str
    title: str
    """How progress and remarks call it."""
    rate: float
    """Tokens a second that the simulator is set to; 0: flat out."""
    run: Callable[[Subject, Plan], Awaitable[Figures]]
    streams: int = 0
    """Of a paced one: how many run at once."""
    at_once: bool = False
    """Before the engine whose streams all tick at once, and which writes in blocks when it runs flat out."""
    of_processes: bool = False
    """It says nothing where there is no proxy."""


def paced_name(streams: int) -> str:
    return f"{streams} paced"


def workloads(plan: Plan, *, at_once: bool) -> list[Workload]:
    """Those before one of the two engines, in the order of each round."""
    most, rate = plan.cost_streams, plan.rate
    held = Workload(HELD_OPEN, f"{plan.open_streams:,} open streams", RATE, held_open, of_processes=True)
    burst_of = partial(paced, streams=most, probe=False)
    burst = Workload(BURST, f"{most:,} x {rate:g}/s at once", rate, burst_of, most, at_once=True)
    blocks = Workload(BLOCKS, f"flat out, {plan.block} a write", 0.0, flat_out, at_once=True)
    long = Workload(LONG_STREAMS, f"streams of {plan.long_tokens}", 0.0, long_streams)
    kinds = {
        "memory": [held],
        "paced": [_paced(paced_name(count), plan, count, probe=True) for count in plan.streams],
        "flat": [Workload(FLAT_OUT, "flat out", 0.0, flat_out)],
        "short": [Workload(SHORT_STREAMS, "streams of 1", 0.0, short_streams)],
        "long": [long],
        "whole": [Workload(WHOLE_ANSWERS, "whole answers", 0.0, whole_answers)],
        "burst": [burst],
        "blocks": [blocks],
    }
    return [each for kind in plan.kinds for each in kinds[kind] if each.at_once == at_once]


def reduced(plan: Plan, streams: int) -> Workload:
    """Instead of the load that CPU per chunk is told for, before a contender that cannot take it."""
    return _paced(REDUCED, plan, streams, probe=False)


def _paced(name: str, plan: Plan, streams: int, *, probe: bool) -> Workload:
    title = f"{streams:,} x {plan.rate:g}/s"
    return Workload(name, title, plan.rate, partial(paced, streams=streams, probe=probe), streams)


__all__ = [
    "BLOCKS",
    "BURST",
    "FLAT_OUT",
    "HELD_OPEN",
    "LONG_STREAMS",
    "REDUCED",
    "SHORT_STREAMS",
    "WHOLE_ANSWERS",
    "Subject",
    "Workload",
    "long_streams",
    "paced_name",
    "reduced",
    "short_streams",
    "whole_answers",
    "workloads",
]
