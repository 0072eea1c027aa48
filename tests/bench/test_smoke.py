"""The bench runs: no figure is asserted, they mean nothing on a busy machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.contenders import ALL
from tests.support.processes import ROOT


def bench(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(180)
def test_quick_run_has_a_row_for_every_contender(tmp_path: Path) -> None:
    done = bench("--quick", "--json", tmp_path / "figures.json")

    assert done.returncode == 0, done.stderr
    for kind in ALL.values():
        assert f"\n{kind.title} " in done.stdout
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    assert {run["contender"] for run in runs} == set(ALL)
    assert len(runs) == len(ALL) * 4


@pytest.mark.timeout(60)
def test_flags_are_documented() -> None:
    done = bench("--help")

    assert done.returncode == 0
    assert "--contenders" in done.stdout
    assert "--json" in done.stdout


@pytest.mark.timeout(60)
def test_unknown_contender_is_refused() -> None:
    done = bench("--contenders", "nobody")

    assert done.returncode == 2
    assert "haproxy" in done.stderr
