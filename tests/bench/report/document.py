"""Puts the figures into the docs, between two markers."""

from __future__ import annotations

from pathlib import Path

from .chart import chart
from .remarks import remarks, troubles
from .report import Report
from .tables import tables

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


class NoPlace(Exception):
    """The document does not say where the figures belong."""


def as_text(report: Report) -> str:
    """For a terminal."""
    about = "\n".join(f"  {name}: {text}" for name, text in report.about.items())
    notes = "\n".join(f"  {text}" for text in remarks(report) + troubles(report))
    return "\n\n".join((about, *(table.as_text() for table in tables(report)), notes.replace("**", "")))


def as_markdown(report: Report, picture: str = "") -> str:
    """For the docs; `picture`: the SVG's path as seen from the document."""
    about = "\n".join(f"- {name}: {text}" for name, text in report.about.items())
    notes = "\n".join(f"- {text}" for text in remarks(report) + _short(troubles(report)))
    image = [f"![CPU per relayed chunk and chunks a second of each contender]({picture})"] if picture else []
    return "\n\n".join((about, *image, *(table.as_markdown() for table in tables(report)), notes))


def write(report: Report, document: Path) -> None:
    """Replaces what stands between the markers, and the SVG beside it. Raises NoPlace, OSError."""
    before, began, rest = document.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not began or not ended:
        raise NoPlace(f"{document} has no lines {BEGIN} and {END}")
    drawing = chart(report)
    picture = document.with_suffix(".svg")
    if drawing:
        picture.write_text(drawing)
    text = as_markdown(report, picture.name if drawing else "")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _short(texts: list[str]) -> list[str]:
    """Without what the contender had to say."""
    return [text.splitlines()[0] for text in texts]
