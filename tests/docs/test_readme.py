"""The README leads to the answers of a newcomer's questions, and its figures are those of docs/benchmarks.md."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from scripts.check_links import links

from .code import ROOT

QUESTIONS = {
    "where is a 401's text": (
        "services/gateway/src/cloudach_gateway/admission/checks/known.py",
        "Incorrect API key provided",
    ),
    "which metrics are there": ("docs/reference/metrics.md", "cloudach_requests_total"),
    "what is in a log line": ("docs/reference/log-fields.md", "duration_ms"),
    "when is a first attempt repeated": ("docs/reference/attempts.md", "timeouts.retries"),
    "how do I run one test": ("docs/how-to-change.md", ".venv/bin/pytest -q"),
    "where would I add an endpoint": ("docs/how-to-change.md", "## Add an endpoint"),
    "where is the lease given back": ("docs/architecture.md", "gives the lease back"),
    "what does CloudachModelNotReady want": ("docs/runbooks/cloudachmodelnotready.md", "## Do"),
    "what does a setting mean": ("docs/reference/settings.md", "timeouts.first_token_s"),
    "what is a promise": ("docs/architecture.md", "| promise |"),
}


@cache
def hops() -> dict[Path, int]:
    """How many links lead from the README to each file."""
    reached = {ROOT / "README.md": 0}
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop(0)
        if page.suffix != ".md":
            continue
        for link in links(page):
            path = link.target.partition("#")[0]
            target = (page.parent / path).resolve()
            if path and "://" not in path and target.is_file() and target not in reached:
                reached[target] = reached[page] + 1
                ahead.append(target)
    return reached


@pytest.mark.parametrize("question", QUESTIONS)
def test_at_most_three_hops_to(question: str) -> None:
    name, answer = QUESTIONS[question]
    assert hops().get(ROOT / name, 99) <= 3
    assert answer in (ROOT / name).read_text()


def measured(table: str, column: int) -> dict[str, str]:
    """A column of one table of the benchmarks, by contender."""
    page = (ROOT / "docs/benchmarks.md").read_text()
    text = page[page.index(f"**{table}") :].split("\n\n")[1]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()[2:]]
    return {row[0]: row[column].rstrip("†") for row in rows}


def test_its_figures_are_measured_ones() -> None:
    """When `make bench WRITE=1` has written others, the README has to say those."""
    readme = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())
    cpu = measured("CPU time of the contender", 1)
    assert (
        f"takes {cpu['Cloudach']} µs of CPU: HAProxy takes {cpu['HAProxy']}, vllm-router {cpu['vllm-router']}, "
        f"LiteLLM {float(cpu['LiteLLM']):.0f}."
    ) in readme
    ttft = measured("Added TTFT", 2)["Cloudach"].partition(" / ")[0]
    memory = float(measured("Memory of 1,000 open streams", 1)["Cloudach"])
    assert f"adds {ttft} ms to its TTFT at 64 streams of 50 tokens/s, and {memory:.0f} KiB of memory" in readme
