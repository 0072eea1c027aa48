"""The figures of all rounds, and the medians that tables are made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import median

Figures = dict[str, float]
"""Figures of one workload in one round, by name; a name ends in its unit where it has one."""


@dataclass(frozen=True, slots=True)
class Run:
    """One workload on one contender in one round."""

    contender: str
    workload: str
    round: int
    figures: Figures


@dataclass(frozen=True, slots=True)
class Saturation:
    """A contender could not relay so many paced streams: they did not end in time, nor when it was tried again."""

    contender: str
    streams: int
    finished: int
    chunks_per_s: float
    """What it did relay."""
    busy: float
    """Of its core."""


@dataclass(slots=True)
class Results:
    runs: list[Run] = field(default_factory=list)
    saturations: list[Saturation] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Contenders that were not measured, by name: why."""
    troubles: list[str] = field(default_factory=list)
    """Runs that gave no figures, and why."""

    def of(self, contender: str, workload: str, name: str) -> dict[int, float]:
        """The figure in each round that has it."""
        return {
            run.round: run.figures[name]
            for run in self.runs
            if run.contender == contender and run.workload == workload and name in run.figures
        }

    def has(self, contender: str, workload: str) -> bool:
        return any(run.contender == contender and run.workload == workload for run in self.runs)

    def saturation(self, contender: str) -> Saturation | None:
        """At the fewest streams that were too many for it."""
        return min((each for each in self.saturations if each.contender == contender), key=_streams, default=None)

    def median(self, contender: str, workload: str, name: str) -> float | None:
        """None where it was not measured."""
        return median_of(self.of(contender, workload, name).values())

    def over(self, base: str, contender: str, workload: str, name: str) -> float | None:
        """The median of the differences to `base` in the same round."""
        own, other = self.of(contender, workload, name), self.of(base, workload, name)
        return median_of([own[number] - other[number] for number in own if number in other])

    def spread(self, contender: str, workload: str, name: str) -> float | None:
        """Largest less smallest round, as a part of the median; None for less than two rounds."""
        values = self.of(contender, workload, name).values()
        middle = median(values) if values else 0.0
        return (max(values) - min(values)) / middle if len(values) > 1 and middle else None

    def all_of(self, name: str) -> list[float]:
        return [run.figures[name] for run in self.runs if name in run.figures]


def ratio(own: dict[int, float], base: dict[int, float]) -> float | None:
    """The median of the ratios of the same round."""
    return median_of([own[number] / base[number] for number in own if base.get(number)])


def median_of(values: Collection[float]) -> float | None:
    """None of nothing."""
    return median(values) if values else None


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The nearest rank; 0 for an empty sequence."""
    if not ascending:
        return 0.0
    return ascending[min(len(ascending) - 1, int(len(ascending) * percent / 100))]


def _streams(saturation: Saturation) -> int:
    return saturation.streams
