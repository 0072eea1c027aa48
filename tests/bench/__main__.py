"""`python -m tests.bench`: see --help."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.processes import ServerFailed

from . import machine, report
from .contenders import ALL
from .runner import RunFailed, run
from .workloads import KINDS, QUICK, Plan

_ABOUT = """\
What proxies between client and engine cost. All contenders stand before the same simulator, get the same requests from
the same client, and are measured in turns; tables show the medians of the rounds. A request that fails ends the run.
docs/benchmarks.md says what is measured and how."""


def _parser() -> argparse.ArgumentParser:
    default = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round, to see that everything runs; its figures mean little")
    add(
        "--contenders",
        type=_some_of(ALL),
        default=tuple(ALL),
        metavar="NAME,…",
        help=f"of {', '.join(ALL)} (default: all); ratios need haproxy, added latency needs direct",
    )
    add(
        "--workloads",
        type=_some_of(KINDS),
        metavar="NAME,…",
        help="of paced (streams at --rate), flat (streams flat out), short (streams of one token), whole (answers that "
        "are not streamed); default: all",
    )
    add("--rounds", type=_positive, metavar="N", help=f"rounds of which the median counts (default: {default.rounds})")
    add(
        "--streams",
        type=_counts,
        metavar="N,…",
        help=f"concurrent paced streams (default: {','.join(map(str, default.streams))}); "
        "CPU per chunk is told for the most",
    )
    add("--rate", type=float, metavar="R", help=f"tokens a second of a paced stream (default: {default.rate:.0f})")
    add("--window", type=float, metavar="S", help=f"seconds of one measurement (default: {default.window_s:g})")
    add("--burst", type=_positive, default=32, help="chunks that the engine writes at once, flat out (default: 32)")
    add("--markdown", action="store_true", help="print tables for docs/benchmarks.md")
    add("--json", type=Path, metavar="FILE", help="write every figure of every round there")
    return parser


def _some_of(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """For `type=`: a list with commas, in the order given, each once."""
    names = tuple(known)

    def read(text: str) -> tuple[str, ...]:
        asked = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
        return asked

    return read


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(part) for part in text.split(",")}))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _plan(options: argparse.Namespace) -> Plan:
    given = {
        "kinds": options.workloads,
        "rounds": options.rounds,
        "streams": options.streams,
        "rate": options.rate,
        "window_s": options.window,
    }
    return dataclasses.replace(
        QUICK if options.quick else Plan(), **{name: value for name, value in given.items() if value is not None}
    )


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 when there are no figures; the reason is on stderr."""
    options = _parser().parse_args(arguments)
    # `with` blocks end the servers on SIGTERM too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan, cores = _plan(options), machine.Cores.choose()
    about = machine.description() | {"cores": cores.sentence()}
    began = time.monotonic()
    try:
        results, versions = run(options.contenders, plan, cores, burst=options.burst, say=_progress)
    except (RunFailed, ServerFailed) as error:
        print(f"\nbench: {error}\nbench: no figures: the run failed", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    _progress("")
    about["contenders"] = ", ".join(f"{name} {version}".strip() for name, version in versions.items())
    about["run"] = (
        f"{plan.rounds} round{'s' * (plan.rounds > 1)} in {time.monotonic() - began:.0f} s, windows of "
        f"{plan.window_s:g} s, flat out with {options.burst} chunk{'s' * (options.burst > 1)} a write"
    )
    bullet, show = ("- ", report.as_markdown) if options.markdown else ("  ", report.as_text)
    print("\n".join(f"{bullet}{name}: {text}" for name, text in about.items()), end="\n\n")
    for table in report.tables(results, options.contenders, plan):
        print(show(table), end="\n\n")
    print("\n".join(f"{bullet}{remark}" for remark in report.remarks(results, options.contenders, plan)))
    if options.json:
        options.json.write_text(report.as_json(results, plan, about, versions, {"burst": options.burst}) + "\n")
    return 0


def _progress(text: str) -> None:
    """On a terminal one line that is written over."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
