"""The figures of all rounds, and the medians that tables are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


@dataclass(slots=True)
class Results:
    runs: list[Run] = field(default_factory=list)

    def of(self, contender: str, workload: str, name: str) -> dict[int, float]:
        """The figure in each round that has it."""
        return {
            run.round: run.figures[name]
            for run in self.runs
            if run.contender == contender and run.workload == workload and name in run.figures
        }

    def median(self, contender: str, workload: str, name: str) -> float | None:
        """None where it was not measured."""
        values = self.of(contender, workload, name).values()
        return median(values) if values else None

    def over(self, base: str, contender: str, workload: str, name: str) -> float | None:
        """The median of the differences to `base` in the same round."""
        own, other = self.of(contender, workload, name), self.of(base, workload, name)
        differences = [own[number] - other[number] for number in own if number in other]
        return median(differences) if differences else None

    def ratio(self, base: str, contender: str, workload: str, name: str) -> float | None:
        """The ratio of the medians."""
        own, other = self.median(contender, workload, name), self.median(base, workload, name)
        return own / other if own is not None and other else None

    def spread(self, contender: str, workload: str, name: str) -> float | None:
        """Largest less smallest round, as a part of the median; None for less than two rounds."""
        values = self.of(contender, workload, name).values()
        middle = median(values) if values else 0.0
        return (max(values) - min(values)) / middle if len(values) > 1 and middle else None

    def all_of(self, name: str) -> list[float]:
        return [run.figures[name] for run in self.runs if name in run.figures]


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The nearest rank; 0 for an empty sequence."""
    if not ascending:
        return 0.0
    return ascending[min(len(ascending) - 1, int(len(ascending) * percent / 100))]


def middle(values: Iterable[float]) -> float:
    """The median; 0 of nothing."""
    ordered = sorted(values)
    return median(ordered) if ordered else 0.0
