"""Every documented value does what it says."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import yaml

from scripts.chart_docs import sections
from tests.charts.case import Case
from tests.charts.value_cases import cases
from tests.support.helm import CHART, HelmFailed, Objects, render

CASES = list(cases())


@lru_cache(maxsize=64)
def _rendered(values: str, arguments: tuple[str, ...]) -> Objects:
    return render(yaml.safe_load(values), arguments=arguments)


def _find(case: Case, values: dict[str, Any]) -> Any:
    """What is found, or the trouble in finding it: with the default an object may be missing, or helm refuse."""
    try:
        return case.look(_rendered(yaml.safe_dump(values), case.arguments))
    except (LookupError, HelmFailed, TypeError) as trouble:
        return trouble


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.path} {c.name}".strip())
def test_the_value_does_what_it_says(case: Case) -> None:
    assert _find(case, case.values()) == case.expected
    if not case.same:
        assert _find(case, case.default_values()) != case.expected, "the default comes out alike: nothing is shown"


def test_every_documented_value_is_tested() -> None:
    documented = {value.path for section in sections((CHART / "values.yaml").read_text()) for value in section.values}
    tested = {case.path for case in CASES}
    assert documented - tested == set()
    assert {path for path in tested - documented if not path.startswith("gateway.config")} == set()
