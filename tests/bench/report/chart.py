"""The figures as bars: an SVG that is readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tests.bench.contenders import PROXY
from tests.bench.workloads import BLOCKS, FLAT_OUT, REDUCED

from .report import Report
from .tables import FEWER, FULL

_WIDTH, _LEFT, _RIGHT, _ROW, _BAR = 760, 108, 150, 30, 16
_STYLE = """\
.page{fill:#ffffff}.text{fill:#1f2328}.soft{fill:#59636e}.line{stroke:#d1d9e0}.all{fill:#9ec5f4}.user{fill:#0a58b5}
@media (prefers-color-scheme:dark){.page{fill:#0d1117}.text{fill:#e6edf3}.soft{fill:#9198a1}.line{stroke:#3d444d}\
.all{fill:#2f5d94}.user{fill:#79b8ff}}
text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif}.title{font-weight:600}.small{font-size:11px}"""


@dataclass(frozen=True, slots=True)
class _Bar:
    label: str
    value: float
    inner: float | None
    """Drawn darker inside."""
    text: str


def chart(report: Report) -> str:
    """CPU per relayed chunk and chunks/s, on logarithmic axes; empty where neither was measured."""
    panels = [
        (f"CPU per relayed chunk, {report.plan.cost_streams} streams of {report.plan.rate:g} tokens/s", "µs", _cost),
        ("CPU per relayed chunk, flat out", "µs", _flat_cost),
        (f"Chunks a second through one core, flat out, {report.plan.block} a write", "chunks/s", _speed),
    ]
    drawn: list[str] = []
    top = 8
    for title, unit, find in panels:
        bars = [bar for name in report.names if (bar := find(report, name)) is not None]
        if bars:
            drawn.append(_panel(title, unit, bars, top))
            top += 62 + _ROW * len(bars)
    if not drawn:
        return ""
    legend = _legend(top)
    fewer = [report.title(name) for name in report.names if report.usual_of(name) == REDUCED]
    if fewer:
        legend += _text(
            _LEFT, top + 32, f"{FEWER} {', '.join(fewer)}: saturated, measured at fewer streams", "soft small"
        )
    height = top + 44
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" role="img">',
            "<title>CPU per relayed chunk and chunks a second of each contender</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
            *drawn,
            legend,
            "</svg>\n",
        )
    )


def _cost(report: Report, name: str) -> _Bar | None:
    workload = report.usual_of(name)
    return _cpu(report, name, workload, FEWER if workload == REDUCED else "")


def _flat_cost(report: Report, name: str) -> _Bar | None:
    return _cpu(report, name, FLAT_OUT, "")


def _cpu(report: Report, name: str, workload: str, mark: str) -> _Bar | None:
    value = report.median(name, workload, f"{PROXY}_us_per_chunk")
    user = report.median(name, workload, f"{PROXY}_user_us_per_chunk")
    if not value:
        return None
    return _Bar(report.title(name) + mark, value, user, f"{value:,.1f} ({user or 0.0:,.1f} user)")


def _speed(report: Report, name: str) -> _Bar | None:
    value = report.median(name, BLOCKS, "chunks_per_s")
    busy = report.median(name, BLOCKS, f"{PROXY}_busy")
    if not value:
        return None
    least = "≥ " if busy is not None and busy < FULL else ""
    return _Bar(report.title(name), value, None, f"{least}{value:,.0f}")


def _legend(top: int) -> str:
    parts = []
    for x, kind, text in ((_LEFT, "user", "user time"), (_LEFT + 90, "all", "the kernel's besides")):
        parts.append(f'<rect class="{kind}" x="{x}" y="{top + 4}" width="10" height="10"/>')
        parts.append(_text(x + 16, top + 13, text, "soft small"))
    parts.append(_text(_LEFT + 230, top + 13, "≥ the core was not full", "soft small"))
    return "\n".join(parts)


def _panel(title: str, unit: str, bars: Sequence[_Bar], top: int) -> str:
    values = [value for bar in bars for value in (bar.value, bar.inner) if value]
    low = 10 ** math.floor(math.log10(min(values) * 0.7))
    high = 10 ** math.ceil(math.log10(max(values)))
    place = _scale(low, max(high, low * 10))
    bottom = top + 28 + _ROW * len(bars)
    lines = [_text(_LEFT, top + 16, f"{title}, {unit} (logarithmic)", "text title")]
    tick = low
    while tick <= high * 1.001:
        x = place(tick)
        lines.append(f'<line class="line" x1="{x:.1f}" y1="{top + 26}" x2="{x:.1f}" y2="{bottom}"/>')
        lines.append(_text(x, bottom + 14, f"{tick:,.10g}", "soft small", "middle"))
        tick *= 10
    for number, bar in enumerate(bars):
        y = top + 30 + _ROW * number
        middle = y + _BAR - 3
        lines.append(_text(_LEFT - 8, middle, bar.label, "text", "end"))
        lines.append(_rectangle(place, y, bar.value, "user" if bar.inner is None else "all"))
        if bar.inner:
            lines.append(_rectangle(place, y, bar.inner, "user"))
        lines.append(_text(place(bar.value) + 6, middle, bar.text, "text small"))
    return "\n".join(lines)


def _scale(low: float, high: float) -> Callable[[float], float]:
    reach = math.log10(high / low)

    def place(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * max(0.0, math.log10(value / low)) / reach

    return place


def _rectangle(place: Callable[[float], float], y: int, value: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{place(value) - _LEFT:.1f}" height="{_BAR}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
