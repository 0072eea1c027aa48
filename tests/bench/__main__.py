"""`python -m tests.bench`: see --help."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.processes import ROOT, ServerFailed

from . import machine, report
from .contenders import ALL, USUAL
from .plan import KINDS, QUICK, Plan
from .runner import Rounds

_ABOUT = """\
What proxies between client and engine cost. All contenders stand before the same simulator, get the same requests from
the same client, and are measured in turns; tables show the medians of the rounds. A contender that cannot take a load
gets a smaller one, and the tables say so. docs/benchmarks.md says what is measured and how."""
_WORKLOADS = """\
workloads: memory (streams held open), paced (streams at --rate), flat (streams flat out), short and long (streams of 1
and of 256 tokens), whole (answers that are not streamed), burst (paced streams that all tick at once), blocks (flat
out, from an engine that writes --block chunks at once)"""
_DOCUMENT = Path("docs/benchmarks.md")


def _parser() -> argparse.ArgumentParser:
    default = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=_ABOUT,
        epilog=_WORKLOADS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round, to see that everything runs; its figures mean little")
    add(
        "--only",
        type=_some_of(ALL),
        default=USUAL,
        metavar="NAME,…",
        help=f"contenders, of {', '.join(ALL)} (default: {', '.join(USUAL)}); ratios need haproxy, added latency "
        "needs direct",
    )
    add("--workloads", type=_some_of(KINDS), metavar="NAME,…", help="see below (default: all)")
    add(
        "--repeats", type=_positive, metavar="N", help=f"rounds of which the median counts (default: {default.repeats})"
    )
    add(
        "--streams",
        type=_counts,
        metavar="N,…",
        help=f"concurrent paced streams (default: {','.join(map(str, default.streams))}); CPU per chunk is told for "
        f"{default.usual_streams}, or the most below",
    )
    add("--rate", type=float, metavar="R", help=f"tokens a second of a paced stream (default: {default.rate:.0f})")
    add("--window", type=float, metavar="S", help=f"seconds of one measurement (default: {default.window_s:g})")
    add("--block", type=_positive, metavar="N", help=f"chunks a write, flat out in blocks (default: {default.block})")
    add("--markdown", action="store_true", help="print the tables as they stand in the docs")
    add(
        "--write",
        type=Path,
        nargs="?",
        const=_DOCUMENT,
        metavar="FILE",
        help=f"put them there, between its markers, and the plot beside it (default: {_DOCUMENT})",
    )
    add("--json", type=Path, metavar="FILE", help="write every figure of every round there")
    add("--from", type=Path, metavar="FILE", dest="source", help="measure nothing: the figures that --json wrote")
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
        "repeats": options.repeats,
        "streams": options.streams,
        "rate": options.rate,
        "window_s": options.window,
        "usual_window_s": options.window,
        "block": options.block,
    }
    return dataclasses.replace(
        QUICK if options.quick else Plan(), **{name: value for name, value in given.items() if value is not None}
    )


def _command(options: argparse.Namespace) -> str:
    """How to get such figures again; where they are written is left out."""
    words = ["python -m tests.bench"]
    if options.quick:
        words.append("--quick")
    if options.only != USUAL:
        words.append(f"--only {','.join(options.only)}")
    for name in ("workloads", "repeats", "streams", "rate", "window", "block"):
        value = getattr(options, name)
        if value is not None:
            words.append(f"--{name} {','.join(map(str, value)) if isinstance(value, tuple) else f'{value:g}'}")
    return "`make bench`" if len(words) == 1 else f"`.venv/bin/{' '.join(words)}`"


def main(arguments: list[str] | None = None) -> int:
    """0; 1 when there are no figures, or some are missing because a contender did not do what it was asked."""
    options = _parser().parse_args(arguments)
    # `with` blocks end the servers on SIGTERM too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        found = report.Report.from_json(options.source) if options.source else _measured(options)
    except (ServerFailed, OSError, ValueError) as error:
        print(f"\nbench: {error}\nbench: no figures", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        options.json.write_text(found.as_json())
    print((report.as_markdown if options.markdown else report.as_text)(found))
    if options.write:
        try:
            report.write(found, ROOT / options.write)
        except (report.NoPlace, OSError) as error:
            print(f"bench: not written: {error}", file=sys.stderr)
            return 1
    return 1 if found.results.troubles or not found.results.runs else 0


def _measured(options: argparse.Namespace) -> report.Report:
    """Raises ServerFailed."""
    plan, cores = _plan(options), machine.Cores.choose()
    machine.allow_many_connections()
    about = {"command": _command(options)} | machine.description() | {"cores": cores.sentence()}
    began = time.monotonic()
    rounds = Rounds(options.only, plan, cores, say=_progress)
    for name, why in rounds.results.absent.items():
        print(f"bench: {ALL[name].title} is left out: {why}", file=sys.stderr)
    rounds.run()
    _progress("")
    about["contenders"] = ", ".join(f"{name} {version}".strip() for name, version in rounds.versions.items())
    about["run"] = (
        f"{plan.repeats} round{'s' * (plan.repeats > 1)} in {(time.monotonic() - began) / 60:.0f} min, windows of "
        f"{plan.window_s:g} s ({plan.usual_window_s:g} s at {plan.cost_streams} streams)"
    )
    names = tuple(name for name in options.only if name not in rounds.results.absent)
    return report.Report(plan, rounds.results, names, about)


def _progress(text: str) -> None:
    """On a terminal one line that is written over."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
