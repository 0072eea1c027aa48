"""Everything that one benchmark is told by, and its way to a file and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.contenders import ALL
from tests.bench.plan import Plan
from tests.bench.results import Results, Run, Saturation
from tests.bench.workloads import REDUCED, paced_name

BASE, DIRECT = "haproxy", "direct"


@dataclass(frozen=True, slots=True)
class Report:
    plan: Plan
    results: Results
    names: tuple[str, ...]
    """Contenders in the order of the tables; those that were not measured are left out."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Machine, software, command: what stands above the tables."""

    def title(self, name: str) -> str:
        return ALL[name].title

    def median(self, name: str, workload: str, figure: str) -> float | None:
        """None where it was not measured."""
        return self.results.median(name, workload, figure)

    @property
    def usual(self) -> str:
        """The paced workload that CPU per chunk is told for."""
        return paced_name(self.plan.cost_streams)

    def usual_of(self, name: str) -> str:
        """That workload, or what a contender got instead that was saturated by it."""
        limit = self.results.saturation(name)
        return REDUCED if limit and limit.streams <= self.plan.cost_streams else self.usual

    def as_json(self) -> str:
        """Every figure of every round."""
        parts = {
            "about": dict(self.about),
            "names": self.names,
            "plan": asdict(self.plan),
            "results": asdict(self.results),
        }
        return json.dumps(parts, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, file: Path) -> Report:
        """Raises ValueError when it is no such file, OSError when it cannot be read."""
        try:
            parts: dict[str, Any] = json.loads(file.read_text())
            plan: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in parts["plan"].items()
            }
            stored = parts["results"]
            results = Results(
                runs=[Run(**run) for run in stored["runs"]],
                saturations=[Saturation(**each) for each in stored["saturations"]],
                absent=stored["absent"],
                troubles=stored["troubles"],
            )
            return cls(Plan(**plan), results, tuple(parts["names"]), parts["about"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} holds no figures of this bench: {error!r}") from error
