"""Tables of the results, for a terminal or for the docs, and all figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from .contenders import ALL
from .contenders.base import PROXY
from .results import Results, middle
from .workloads import FLAT_OUT, SHORT_STREAMS, WHOLE_ANSWERS, Plan, paced_name

_BASE, _DIRECT = "haproxy", "direct"
_APART = 0.9
_NOISY = 0.1


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Results, names: Sequence[str], plan: Plan) -> list[Table]:
    """One row per contender in each; what was not measured is left out."""
    made = (_filled(make(results, names, plan)) for make in (_cost, _speed, _delay))
    return [table for table in made if len(table.head) > 1]


def as_text(table: Table) -> str:
    widths = [max(len(row[column]) for row in (table.head, *table.rows)) for column in range(len(table.head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join((first, *rest)).rstrip()

    return "\n".join((table.title, line(table.head), *(line(row) for row in table.rows)))


def as_markdown(table: Table) -> str:
    rule = ["---", *("--:" for _ in table.head[1:])]
    lines = ["| " + " | ".join(cells) + " |" for cells in (table.head, rule, *table.rows)]
    return "\n".join((f"**{table.title}**", "", *lines))


def as_json(
    results: Results, plan: Plan, machine: Mapping[str, str], versions: Mapping[str, str], options: Mapping[str, object]
) -> str:
    """Every figure of every round."""
    return json.dumps(
        {
            "machine": machine,
            "versions": versions,
            "options": options,
            "plan": asdict(plan),
            "runs": [asdict(run) for run in results.runs],
        },
        indent=1,
    )


def remarks(results: Results, names: Sequence[str], plan: Plan) -> list[str]:
    """What a reader has to know before believing a figure."""
    found = []
    top = paced_name(max(plan.streams))
    spreads = [
        f"{ALL[name].title} {spread:.0%}"
        for name in names
        if (spread := results.spread(name, top, f"{PROXY}_us_per_chunk")) is not None
    ]
    if spreads:
        found.append("Spread of the rounds (largest less smallest) in CPU per chunk: " + ", ".join(spreads))
    foreign = middle(results.all_of("foreign_cores"))
    found.append(
        f"Other programs and the hypervisor took {foreign:.2f} cores meanwhile (median)"
        + ("; the machine was not quiet: measure again." if foreign > _NOISY else ".")
    )
    for name in names:
        arrivals = results.median(name, top, "arrivals_per_chunk")
        if arrivals is not None and arrivals < _APART:
            busy = _percent(results.median(name, top, f"{PROXY}_busy"))
            why = f" (its core was busy to {busy})" if busy else ""
            found.append(
                f"{ALL[name].title} at {top}: only {arrivals:.0%} of the chunks arrived by themselves, the rest merged "
                f"for want of CPU time{why}. Merged chunks cost less, and a lag above one tick "
                f"({1000 / plan.rate:.0f} ms) is told too small."
            )
        if results.median(name, top, "requests_begun_in_window"):
            found.append(f"{ALL[name].title}, {top}: the window holds beginnings of streams.")
    return found


def _cost(results: Results, names: Sequence[str], plan: Plan) -> Table:
    top = paced_name(max(plan.streams))
    columns = [
        (f"µs/chunk, {max(plan.streams)} x {plan.rate:.0f}/s", top, f"{PROXY}_us_per_chunk", 1),
        ("µs/chunk, flat out", FLAT_OUT, f"{PROXY}_us_per_chunk", 1),
        ("ms/stream of 1", SHORT_STREAMS, f"{PROXY}_ms_per_request", 3),
        ("ms/whole answer", WHOLE_ANSWERS, f"{PROXY}_ms_per_request", 3),
    ]
    head = ["CPU of the contender"]
    for title, *_ in columns:
        head += [title, "ratio"]
    head.insert(3, "user only")
    head.append("Valkey, ms/request")
    rows = []
    for name in names:
        row = [ALL[name].title]
        for _, workload, figure, digits in columns:
            row.append(_number(results.median(name, workload, figure), digits))
            ratio = results.ratio(_BASE, name, workload, figure)
            row.append("" if ratio is None else f"{ratio:.2f}")
        row.insert(3, _number(results.median(name, top, f"{PROXY}_user_us_per_chunk"), 1))
        row.append(_number(results.median(name, SHORT_STREAMS, "valkey_ms_per_request"), 3))
        rows.append(row)
    return Table("CPU time (ratio to HAProxy)", head, rows)


def _speed(results: Results, names: Sequence[str], plan: Plan) -> Table:
    top = paced_name(max(plan.streams))
    head = ["Throughput", "chunks/s, flat out", "core busy", "streams of 1/s", "core busy", "whole answers/s"]
    head += ["core busy", f"core busy, {max(plan.streams)} x {plan.rate:.0f}/s"]
    rows = []
    for name in names:
        row = [ALL[name].title]
        for workload, figure in (
            (FLAT_OUT, "chunks_per_s"),
            (SHORT_STREAMS, "requests_per_s"),
            (WHOLE_ANSWERS, "requests_per_s"),
        ):
            row.append(_number(results.median(name, workload, figure), 0))
            row.append(_percent(results.median(name, workload, f"{PROXY}_busy")))
        row.append(_percent(results.median(name, top, f"{PROXY}_busy")))
        rows.append(row)
    return Table("Throughput of one core (where it is not busy, client and simulator are the limit)", head, rows)


def _delay(results: Results, names: Sequence[str], plan: Plan) -> Table:
    head = ["Added latency, ms"]
    head += [f"TTFT at {count}, p50 / p99" for count in plan.streams]
    head += [f"chunk at {count}, p50 / p99" for count in plan.streams]
    compare = _DIRECT in names
    rows = []
    for name in names:
        absolute = name == _DIRECT or not compare
        row = [ALL[name].title + (" (itself)" if name == _DIRECT else "")]
        for kind in ("ttft", "lag"):
            for count in plan.streams:
                pair = []
                for percent in ("p50", "p99"):
                    figure = f"{kind}_{percent}_ms"
                    workload = paced_name(count)
                    value = (
                        results.median(name, workload, figure)
                        if absolute
                        else results.over(_DIRECT, name, workload, figure)
                    )
                    pair.append(_number(value, 2))
                row.append(" / ".join(filter(None, pair)))
        rows.append(row)
    return Table(
        "Latency beyond that of no proxy" if compare else "Latency, the engine's and client's included", head, rows
    )


def _filled(table: Table) -> Table:
    """Without the columns that say nothing."""
    keep = [0, *(index for index in range(1, len(table.head)) if any(row[index] for row in table.rows))]
    return Table(table.title, [table.head[index] for index in keep], [[row[i] for i in keep] for row in table.rows])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
