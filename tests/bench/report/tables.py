"""The tables of figures and of ratios."""

from __future__ import annotations

from tests.bench.contenders import PROXY
from tests.bench.results import median_of, ratio
from tests.bench.workloads import (
    BLOCKS,
    BURST,
    FLAT_OUT,
    HELD_OPEN,
    LONG_STREAMS,
    REDUCED,
    SHORT_STREAMS,
    WHOLE_ANSWERS,
    paced_name,
)

from .report import BASE, DIRECT, Report
from .table import Table

FULL = 0.9
"""Of a core: beyond it, the core is the limit."""
FEWER = "†"
_CHUNK, _USER_CHUNK, _REQUEST = f"{PROXY}_us_per_chunk", f"{PROXY}_user_us_per_chunk", f"{PROXY}_ms_per_request"


def tables(report: Report) -> list[Table]:
    """What was not measured is left out."""
    made = [make(report).filled() for make in (_ratios, _cost, _speed, _ttft, _lag, _gap, _memory)]
    return [table for table in made if len(table.head) > 1 and table.rows]


def _cost(report: Report) -> Table:
    plan = report.plan
    paced = f"{plan.cost_streams} x {plan.rate:g}/s"
    head = ["CPU"]
    for load in (paced, "all at once", "flat out", f"flat out, {plan.block} a write"):
        head += [f"µs/chunk, {load}", "of it user"]
    head += ["ms/stream of 1", f"ms/stream of {plan.long_tokens}"]
    head += [f"ms/whole answer of {plan.answer_tokens}", "Valkey besides, ms/whole answer"]
    rows = []
    for name in report.names:
        usual = report.usual_of(name)
        mark = FEWER if usual == REDUCED else ""
        row = [report.title(name)]
        for workload in (usual, BURST, FLAT_OUT, BLOCKS):
            for figure in (_CHUNK, _USER_CHUNK):
                cell = _number(report.median(name, workload, figure), 1)
                row.append(cell + mark if cell and workload == usual else cell)
        row += [
            _number(report.median(name, load, _REQUEST), 3) for load in (SHORT_STREAMS, LONG_STREAMS, WHOLE_ANSWERS)
        ]
        row.append(_number(report.median(name, WHOLE_ANSWERS, "valkey_ms_per_request"), 3))
        rows.append(row)
    return Table("CPU time of the contender", head, rows)


def _speed(report: Report) -> Table:
    loads = (
        ("chunks/s, flat out", FLAT_OUT, "chunks_per_s"),
        (f"chunks/s, flat out, {report.plan.block} a write", BLOCKS, "chunks_per_s"),
        ("streams of 1/s", SHORT_STREAMS, "requests_per_s"),
        (f"whole answers of {report.plan.answer_tokens}/s", WHOLE_ANSWERS, "requests_per_s"),
    )
    head = ["Throughput"]
    for title, *_ in loads:
        head += [title, "core busy"]
    rows = []
    for name in report.names:
        row = [report.title(name)]
        for _, workload, figure in loads:
            row += [_at_least(report, name, workload, figure), _busy(report, name, workload)]
        rows.append(row)
    return Table("Throughput of one core (≥ where it was not full: client and simulator were the limit)", head, rows)


def _ttft(report: Report) -> Table:
    return _delay(report, "ttft", "TTFT")


def _lag(report: Report) -> Table:
    return _delay(report, "lag", "latency of a chunk", at_once=True)


def _gap(report: Report) -> Table:
    return _delay(report, "gap", "inter-token latency", at_once=True)


def _delay(report: Report, kind: str, what: str, *, at_once: bool = False) -> Table:
    plan = report.plan
    loads = [(f"{count:,} x {plan.rate:g}/s", paced_name(count), count) for count in plan.streams]
    if at_once and "burst" in plan.kinds:
        loads.append((f"{plan.cost_streams} at once", BURST, plan.cost_streams))
    compare = DIRECT in report.names
    rows = []
    for name in report.names:
        itself = name == DIRECT or not compare
        row = [report.title(name) + (" (itself)" if name == DIRECT else "")]
        for _, workload, count in loads:
            pair = []
            for percent in (50, 99):
                figure = f"{kind}_p{percent}_ms"
                found = (
                    report.median(name, workload, figure)
                    if itself
                    else report.results.over(DIRECT, name, workload, figure)
                )
                pair.append(_number(found, 2))
            row.append(" / ".join(filter(None, pair)) or _saturated(report, name, count, workload == BURST))
        rows.append(row)
    title = f"Added {what}, ms, p50 / p99" if compare else f"{what}, ms, p50 / p99, engine and client included"
    return Table(title[0].upper() + title[1:], [what[0].upper() + what[1:], *(load[0] for load in loads)], rows)


def _saturated(report: Report, name: str, streams: int, burst: bool) -> str:
    limit = report.results.saturation(name)
    if limit is None or streams < limit.streams:
        return ""
    if streams > limit.streams or burst:
        return "not tried"
    if limit.finished == limit.streams:
        return f"saturated: {limit.chunks_per_s / (limit.streams * report.plan.rate):.0%} of the pace"
    return f"saturated: {limit.finished} of {limit.streams:,} finished"


def _memory(report: Report) -> Table:
    most = max(report.plan.streams)
    head = ["Memory", "KiB/stream, PSS", "KiB/stream, RSS", "streams open"]
    head += [f"KiB/stream, PSS, at {most:,} x {report.plan.rate:g}/s", "idle, MiB PSS"]
    rows = [
        [
            report.title(name),
            _number(report.median(name, HELD_OPEN, "pss_kib_per_stream"), 1),
            _number(report.median(name, HELD_OPEN, "rss_kib_per_stream"), 1),
            _number(report.median(name, HELD_OPEN, "streams_open"), 0),
            _number(_busy_memory(report, name, most), 1),
            _number(report.median(name, HELD_OPEN, "idle_pss_mib"), 0),
        ]
        for name in report.names
    ]
    return Table(f"Memory of {report.plan.open_streams:,} open streams, over idle", head, rows)


def _busy_memory(report: Report, name: str, streams: int) -> float | None:
    """KiB of each stream while all are relayed, over the idle process of the same round."""
    held = report.results.of(name, paced_name(streams), "pss_mib")
    idle = report.results.of(name, HELD_OPEN, "idle_pss_mib")
    return median_of([1024 * (held[number] - idle[number]) / streams for number in held if number in idle])


def _ratios(report: Report) -> Table:
    plan = report.plan
    columns = (
        (f"µs/chunk, {plan.cost_streams} x {plan.rate:g}/s", report.usual, _CHUNK),
        ("user only", report.usual, _USER_CHUNK),
        ("µs/chunk, all at once", BURST, _CHUNK),
        ("µs/chunk, flat out", FLAT_OUT, _CHUNK),
        ("chunks/s, flat out", FLAT_OUT, "chunks_per_s"),
        (f"µs/chunk, {plan.block} a write", BLOCKS, _CHUNK),
        (f"chunks/s, {plan.block} a write", BLOCKS, "chunks_per_s"),
        ("ms/stream of 1", SHORT_STREAMS, _REQUEST),
        (f"ms/stream of {plan.long_tokens}", LONG_STREAMS, _REQUEST),
        ("ms/whole answer", WHOLE_ANSWERS, _REQUEST),
        ("whole answers/s", WHOLE_ANSWERS, "requests_per_s"),
        ("KiB/stream", HELD_OPEN, "pss_kib_per_stream"),
    )
    rows = []
    for name in report.names:
        row = [report.title(name)]
        for _, workload, figure in columns:
            own = report.usual_of(name) if workload == report.usual else workload
            found = ratio(report.results.of(name, own, figure), report.results.of(BASE, workload, figure))
            cell = "" if found is None or name == DIRECT else _ratio(found)
            row.append(cell + FEWER if cell and own == REDUCED else cell)
        rows.append(row)
    return Table("Ratios to HAProxy, medians of the rounds' ratios", ["Ratio", *(each[0] for each in columns)], rows)


def _at_least(report: Report, name: str, workload: str, figure: str) -> str:
    cell = _number(report.median(name, workload, figure), 0)
    busy = report.median(name, workload, f"{PROXY}_busy")
    return f"≥ {cell}" if cell and busy is not None and busy < FULL else cell


def _busy(report: Report, name: str, workload: str) -> str:
    value = report.median(name, workload, f"{PROXY}_busy")
    return "" if value is None else f"{value:.0%}"


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
