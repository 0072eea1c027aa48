"""One version, wherever it stands."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from cloudach_controller.settings import Inference

from tests.support.helm import VERSION
from tests.support.processes import ROOT

CHARTS = ("cloudach", "cloudach-crds")
RELEASED = ROOT / "tests" / "charts" / "released"


@pytest.mark.parametrize("path", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/*/pyproject.toml")))
def test_of_the_packages(path: str) -> None:
    assert tomllib.loads((ROOT / path).read_text())["project"]["version"] == VERSION


@pytest.mark.parametrize("name", CHARTS)
def test_of_the_charts(name: str) -> None:
    chart = yaml.safe_load((ROOT / "charts" / name / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


@pytest.mark.parametrize("name", CHARTS)
def test_the_chart_is_newer_than_the_released_ones(name: str) -> None:
    """A released version is never changed: what changes afterwards is of the next one."""
    released = [re.fullmatch(rf"{name}-([\d.]+)\.tgz", path.name) for path in RELEASED.iterdir()]
    versions = [tuple(map(int, found[1].split("."))) for found in released if found]
    assert versions
    assert max(versions) < tuple(map(int, VERSION.split(".")))


def test_of_images() -> None:
    assert Inference().image.endswith(f":{VERSION}")
    texts = [*ROOT.glob("docker/*.Dockerfile"), *ROOT.glob("docs/*.md"), *ROOT.glob("k8s/**/*.yaml")]
    tags = {tag for path in texts for tag in re.findall(r"ghcr\.io/cloudach/\w+:(\d[\w.-]*)", path.read_text())}
    assert tags == {VERSION}
