"""A table, for a terminal or for the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def filled(self) -> Table:
        """Without the columns and rows that say nothing."""
        keep = [0, *(index for index in range(1, len(self.head)) if any(row[index] for row in self.rows))]
        rows = [[row[index] for index in keep] for row in self.rows if any(row[1:])]
        return Table(self.title, [self.head[index] for index in keep], rows)

    def as_text(self) -> str:
        widths = [max(len(row[column]) for row in (self.head, *self.rows)) for column in range(len(self.head))]

        def line(cells: Sequence[str]) -> str:
            first, *rest = (
                cell.ljust(width) if not index else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return "  ".join((first, *rest)).rstrip()

        return "\n".join((self.title, line(self.head), *(line(row) for row in self.rows)))

    def as_markdown(self) -> str:
        rule = ["---", *("--:" for _ in self.head[1:])]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.head, rule, *self.rows)]
        return "\n".join((f"**{self.title}**", "", *lines))
