"""Alerts and dashboards ask for metrics that exist, in PromQL that parses; each alert has a runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any

import promql_parser
import pytest
from cloudach_controller import metrics as controller_metrics
from cloudach_gateway import cluster_metrics, metrics
from cloudach_gateway.proxy.stream.slow_path import SlowPath
from prometheus_client import REGISTRY

from tests.support.helm import CHART, NAMESPACE, render
from tests.support.processes import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
OURS = ("cloudach_", "gen_ai_")
ON = {"monitoring": {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}}


@cache
def alerts() -> list[dict[str, Any]]:
    (rule,) = render(ON).all("PrometheusRule")
    return rule["spec"]["groups"][0]["rules"]


def known_series() -> set[str]:
    """The series of the gateway's and the controller's metrics, and `up`, which Prometheus makes itself."""
    assert metrics.REQUESTS
    assert cluster_metrics.MODELS
    assert controller_metrics.LEADER
    families = [family for family in REGISTRY.collect() if family.name.startswith(OURS)]
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    return {family.name + suffix for family in families for suffix in suffixes[family.type]} | {"up"}


def labels_of(series: str) -> set[str]:
    name = re.sub(r"_(total|bucket|count|sum)$", "", series)
    for metric in chain.from_iterable(vars(each).values() for each in (metrics, cluster_metrics, controller_metrics)):
        if getattr(metric, "_name", None) == name:
            return set(metric._labelnames)
    return set()


FROM_PROMETHEUS = {"job", "namespace", "pod", "instance", "le"}


def selectors(node: Any) -> Iterator[Any]:
    """The vector selectors of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from selectors(node.vector_selector)
    for name in ("lhs", "rhs", "expr"):
        inner = getattr(node, name, None)
        if inner is not None:
            yield from selectors(inner)
    for inner in getattr(node, "args", None) or ():
        yield from selectors(inner)


def queries() -> list[tuple[str, str]]:
    found = [(rule["alert"], rule["expr"]) for rule in alerts()]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            found += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


@pytest.mark.parametrize(("where", "expression"), queries(), ids=lambda text: text if len(text) < 60 else "")
def test_queries_ask_for_series_and_labels_that_exist(where: str, expression: str) -> None:
    asked = list(selectors(promql_parser.parse(expression.replace("$__rate_interval", "5m"))))
    assert asked, "no series found in it"
    for selector in asked:
        assert selector.name in known_series()
        used = {matcher.name for matcher in selector.matchers.matchers}
        assert used <= labels_of(selector.name) | FROM_PROMETHEUS


def test_the_alert_on_parsed_chunks_asks_for_a_reason_that_exists() -> None:
    (rule,) = (each for each in alerts() if "cloudach_slow_path_streams_total" in each["expr"])
    (selector,) = selectors(promql_parser.parse(rule["expr"]))
    asked = {matcher.value for matcher in selector.matchers.matchers if matcher.name == "reason"}
    assert asked == {SlowPath.UNKNOWN_FORM}


def test_labels_that_alerts_speak_of_come_out_of_their_expression() -> None:
    for rule in alerts():
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
            kept = any(label in group for group in grouped) or not grouped
            assert kept, f"{rule['alert']} speaks of {label}"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    named = {rule["alert"].lower() for rule in alerts()}
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == named
    for rule in alerts():
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert'].lower()}.md")
        text = (RUNBOOKS / f"{rule['alert'].lower()}.md").read_text()
        assert text.startswith(f"# {rule['alert']}\n")
        assert all(f"\n## {heading}\n" in text for heading in ("What it means", "Look", "Do"))


def test_every_metric_of_the_gateway_is_on_a_dashboard() -> None:
    text = "".join(path.read_text() for path in DASHBOARDS)
    others = {getattr(metric, "_name", "") for metric in vars(controller_metrics).values()}
    names = {family.name for family in REGISTRY.collect() if family.name.startswith(OURS)} - others
    assert {name for name in names if name not in text} == set()


def test_alerts_are_about_this_release_alone() -> None:
    for rule in alerts():
        assert f'namespace="{NAMESPACE}"' in rule["expr"]


def test_dashboards_come_out_whole() -> None:
    boards = [one for one in render(ON).all("ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]]
    assert len(boards) == len(DASHBOARDS) >= 2
    for board in boards:
        ((name, text),) = board["data"].items()
        assert json.loads(text) == json.loads((CHART / "dashboards" / name).read_text())
