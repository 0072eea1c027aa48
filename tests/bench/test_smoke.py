"""The bench runs: no figure is asserted, they mean nothing on a busy machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT

_HERE = {"direct": "direct", "haproxy": "HAProxy", "cloudach": "Cloudach"}
"""Contenders that the workspace itself brings, and how tables call them."""


def bench(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_quick_run_measures_every_contender_and_workload(tmp_path: Path) -> None:
    document = tmp_path / "costs.md"
    document.write_text("<!-- bench: begin --><!-- bench: end -->")

    done = bench("--quick", "--only", ",".join(_HERE), "--json", tmp_path / "figures.json", "--write", document)

    assert done.returncode == 0, done.stderr + done.stdout
    for title in _HERE.values():
        assert f"\n{title} " in done.stdout
    runs = json.loads((tmp_path / "figures.json").read_text())["results"]["runs"]
    measured = {(run["contender"], run["workload"]) for run in runs}
    loads = {"16 paced", "burst", "flat out", "flat out in blocks", "short streams", "long streams", "whole answers"}
    proxies = {name for name in _HERE if name != "direct"}
    assert measured == {(name, load) for name in _HERE for load in loads} | {(name, "held open") for name in proxies}
    assert "| Cloudach |" in document.read_text()
    assert (tmp_path / "costs.svg").read_text().startswith("<svg ")


def test_traces_can_be_measured() -> None:
    names = ["cloudach", "cloudach-otel-unsampled", "cloudach-otel-all"]
    done = bench("--quick", "--only", ",".join(names), "--workloads", "short")

    assert done.returncode == 0, done.stderr + done.stdout
    for title in ("Cloudach", "Cloudach, traces unsampled", "Cloudach, all traces"):
        assert f"\n{title} " in done.stdout


def test_flags_are_documented() -> None:
    done = bench("--help")

    assert done.returncode == 0
    for flag in ("--only", "--repeats", "--write", "--json"):
        assert flag in done.stdout


def test_unknown_contender_is_refused() -> None:
    done = bench("--only", "nobody")

    assert done.returncode == 2
    assert "haproxy" in done.stderr
