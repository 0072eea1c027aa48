"""What a reader has to know before believing a figure."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.contenders import PROXY
from tests.bench.results import median_of
from tests.bench.workloads import HELD_OPEN, REDUCED, Workload, workloads

from .report import DIRECT, Report
from .tables import FEWER, FULL

_APART = 0.9
_KEPT_UP = 0.9
_NOISY = 0.1


def remarks(report: Report) -> list[str]:
    """Each a sentence or two."""
    return [
        each for kind in (_absent, _saturated, _generator, _late, _merged, _memory, _noise) for each in kind(report)
    ]


def troubles(report: Report) -> list[str]:
    """Runs without figures."""
    return [f"Not measured: {each}" for each in report.results.troubles]


def _absent(report: Report) -> Iterator[str]:
    for name, why in report.results.absent.items():
        yield f"{report.title(name)} was not measured: {why}."


def _saturated(report: Report) -> Iterator[str]:
    rate = report.plan.rate
    for name in report.names:
        limit = report.results.saturation(name)
        if limit is None:
            continue
        text = (
            f"{report.title(name)} was saturated by {limit.streams:,} streams of {rate:g}/s: "
            f"{limit.chunks_per_s:,.0f} of {limit.streams * rate:,.0f} chunks/s came through, {limit.finished} streams "
            f"finished in time, its core was busy to {limit.busy:.0%}. More streams were not tried."
        )
        fewer = report.median(name, REDUCED, "streams")
        if fewer is not None:
            text = f"{FEWER} {text} Its CPU per paced chunk is that of {fewer:.0f} streams."
        yield text


def _generator(report: Report) -> Iterator[str]:
    """Where client and simulator were the limit, chunks come late for another reason than the contender."""
    found = {}
    for workload in _all(report):
        full = [
            report.title(name)
            for name in report.names
            if (report.median(name, workload.name, "generator_busy") or 0.0) > FULL
        ]
        if full:
            found[workload.title] = ", ".join(full)
    if found:
        listed = "; ".join(f"{title} ({who})" for title, who in found.items())
        yield (
            f"**Client and simulator were full** (over {FULL:.0%} of their core) at: {listed}. Chunks/s and requests/s "
            "are theirs there, and so is most of the latency."
        )


def _late(report: Report) -> Iterator[str]:
    """Some tokens bring no chunk, for want of a whole character: a few of a hundred."""
    for workload in _all(report):
        came = report.median(DIRECT, workload.name, "chunks_per_s")
        expected = report.median(DIRECT, workload.name, "chunks_expected_per_s")
        if came is not None and expected and came < _KEPT_UP * expected:
            yield (
                f"**Client and simulator did not keep the pace** at {workload.title}: {came:,.0f} of {expected:,.0f} "
                "chunks/s came also without a proxy."
            )


def _merged(report: Report) -> Iterator[str]:
    for workload in _all(report):
        for name in report.names:
            reads = report.median(name, workload.name, "reads_per_chunk")
            if workload.streams and reads is not None and reads < _APART:
                busy = report.median(name, workload.name, f"{PROXY}_busy")
                core = "" if busy is None else f", its core busy to {busy:.0%}"
                if busy is None or busy < FULL:
                    core += ": the client came late to reading"
                yield (
                    f"{report.title(name)} at {workload.title}: chunks came merged, {reads:.0%} as many reads as chunks"
                    f"{core}. Merged chunks cost less, and latency of a chunk is told modulo one step "
                    f"({1000 / report.plan.rate:.0f} ms)."
                )


def _memory(report: Report) -> Iterator[str]:
    for name in report.names:
        opened = report.median(name, HELD_OPEN, "streams_open")
        if opened is not None and opened < report.plan.open_streams:
            yield (
                f"{report.title(name)} had opened {opened:.0f} of {report.plan.open_streams:,} streams after "
                f"{report.plan.open_s:g} s; its memory is told for those."
            )


def _noise(report: Report) -> Iterator[str]:
    spreads = [
        f"{report.title(name)} {spread:.0%}"
        for name in report.names
        if (spread := report.results.spread(name, report.usual_of(name), f"{PROXY}_us_per_chunk")) is not None
    ]
    if spreads:
        yield "Spread of the rounds (largest less smallest) in CPU per paced chunk: " + ", ".join(spreads) + "."
    foreign = median_of(report.results.all_of("foreign_cores")) or 0.0
    yield f"Other programs and the hypervisor took {foreign:.2f} cores meanwhile (median)" + (
        "; **the machine was not quiet: measure again**." if foreign > _NOISY else "."
    )


def _all(report: Report) -> list[Workload]:
    return [workload for at_once in (False, True) for workload in workloads(report.plan, at_once=at_once)]
