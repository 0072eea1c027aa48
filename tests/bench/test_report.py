"""The tables, remarks and the plot, from figures made up for it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.plan import Plan
from tests.bench.report import NoPlace, Report, as_markdown, as_text, write
from tests.bench.report.chart import chart
from tests.bench.report.document import BEGIN, END
from tests.bench.results import Results, Run, Saturation
from tests.bench.workloads import BLOCKS, FLAT_OUT, REDUCED, WHOLE_ANSWERS, paced_name

_NAMES = ("direct", "haproxy", "cloudach", "litellm")


def report() -> Report:
    """Three rounds; LiteLLM could not take 64 streams, vllm-router was not there."""
    results = Results(absent={"vllm-router": "not installed"})
    results.saturations.append(Saturation("litellm", 64, 3, 800.0, 0.99))
    for number, drift in enumerate((1.0, 2.0, 1.5)):
        for name, cost in (("haproxy", 10.0), ("cloudach", 12.0)):
            paced = {"proxy_us_per_chunk": cost * drift, "proxy_user_us_per_chunk": cost / 2, "lag_p50_ms": 0.5}
            results.runs.append(Run(name, paced_name(256), number, paced | {"lag_p99_ms": 2.0, "generator_busy": 0.95}))
            flat = {"proxy_us_per_chunk": cost / 10, "chunks_per_s": 1e5, "proxy_busy": 0.4 if cost == 10 else 0.98}
            results.runs += [Run(name, load, number, flat) for load in (FLAT_OUT, BLOCKS)]
        direct = {"lag_p50_ms": 0.2, "lag_p99_ms": 1.0, "chunks_per_s": 9000.0, "chunks_expected_per_s": 12800.0}
        results.runs.append(Run("direct", paced_name(256), number, direct))
        fewer = {"proxy_us_per_chunk": 400.0 * drift, "proxy_user_us_per_chunk": 300.0, "streams": 8.0}
        results.runs.append(Run("litellm", REDUCED, number, fewer))
        results.runs.append(Run("litellm", WHOLE_ANSWERS, number, {"requests_per_s": 60.0, "proxy_busy": 1.0}))
    return Report(Plan(), results, _NAMES, {"cpu": "two cores"})


def row(text: str, table: str, name: str) -> str:
    """The line of a contender in a table, spaces joined."""
    lines = text[text.index(table) :].splitlines()
    return " ".join(next(line for line in lines if line.startswith(name)).split())


def test_ratios_are_those_of_the_same_round() -> None:
    assert row(as_text(report()), "Ratios to HAProxy", "Cloudach").startswith("Cloudach 1.20 1.20 1.20 1.00")


def test_a_saturated_contender_is_told_at_its_own_load() -> None:
    text = as_text(report())
    assert row(text, "Ratios to HAProxy", "LiteLLM").startswith("LiteLLM 40.00† 60.00†")
    assert "saturated: 3 of 64 finished" in row(text, "Added latency of a chunk", "LiteLLM")
    assert "not tried" in row(text, "Added latency of a chunk", "LiteLLM")
    assert "800 of 3,200 chunks/s came through, 3 streams finished in time, its core was busy to 99%" in text
    assert "Its CPU per paced chunk is that of 8 streams." in text


def test_a_core_that_was_not_full_gives_a_lower_bound() -> None:
    text = as_text(report())
    assert "≥ 100,000" in row(text, "Throughput of one core", "HAProxy")
    assert "≥" not in row(text, "Throughput of one core", "Cloudach")


def test_figures_that_could_mislead_come_with_a_warning() -> None:
    text = as_text(report())
    assert "Client and simulator were full (over 90% of their core) at: 256 x 50/s (HAProxy, Cloudach)" in text
    assert "did not keep the pace at 256 x 50/s: 9,000 of 12,800" in text
    assert "vllm-router was not measured: not installed." in text


def test_added_latency_is_over_direct() -> None:
    assert "0.30 / 1.00" in row(as_text(report()), "Added latency of a chunk", "Cloudach")


def test_figures_survive_a_file(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text(report().as_json())
    assert as_markdown(Report.from_json(file)) == as_markdown(report())
    file.write_text("{}")
    with pytest.raises(ValueError, match="no figures"):
        Report.from_json(file)


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path) -> None:
    document = tmp_path / "costs.md"
    document.write_text(f"# Costs\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")
    for _ in range(2):
        write(report(), document)
    text = document.read_text()
    assert text.startswith(f"# Costs\n\n{BEGIN}\n\n- cpu: two cores\n\n![")
    assert text.endswith(f"{END}\n\nThe end.\n")
    assert text.count("Ratios to HAProxy") == 1
    assert "old" not in text
    assert "(costs.svg)" in text
    assert (tmp_path / "costs.svg").exists()


def test_a_document_without_markers_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "other.md"
    document.write_text("no place")
    with pytest.raises(NoPlace):
        write(report(), document)
    assert document.read_text() == "no place"


def test_the_plot_is_an_image_with_a_bar_for_each() -> None:
    drawing = ElementTree.fromstring(chart(report()))
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("Cloudach") == 3
    assert "LiteLLM†" in texts
    assert "prefers-color-scheme:dark" in chart(report())


def test_without_figures_there_is_no_plot() -> None:
    assert chart(Report(Plan(), Results(), _NAMES)) == ""
