"""Every file of k8s/examples is applied; every field that it names is in what comes back."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloudach_model_api import Model

from tests.support.kube import Cluster
from tests.support.processes import ROOT

pytestmark = pytest.mark.timeout(600)  # the first test waits for a server

EXAMPLES = sorted((ROOT / "k8s/examples").glob("*.yaml"))


def text_of_models() -> str:
    return (ROOT / "docs/models.md").read_text()


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def holds(whole: Any, part: Any) -> bool:
    """Whether everything in `part` stands in `whole` too."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and holds(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(holds, whole, part))
    return bool(whole == part)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(cluster: Cluster, path: Path) -> None:
    for document in documents(path):
        kubectl = cluster.kubectl if document["kind"] == "Model" else cluster.builtin
        kubectl.apply(document)
        try:
            read = kubectl.get(document["kind"], document["metadata"]["name"])
            if document["kind"] == "Model":
                assert holds(read["spec"], document["spec"])
                assert Model.from_object(read).names
        finally:
            kubectl("delete", document["kind"], document["metadata"]["name"], "--wait=false")


def test_the_issues_examples_are_there() -> None:
    assert {
        "quick-start-single-gpu",
        "multi-gpu-70b",
        "autoscaling",
        "scale-to-zero",
        "private-hugging-face",
        "pvc-weights",
        "lora",
    } <= {path.stem for path in EXAMPLES}


def test_each_is_told_of_in_the_docs() -> None:
    text = text_of_models()
    assert [path.name for path in EXAMPLES if f"(../k8s/examples/{path.name})" not in text] == []


def test_the_hpa_of_the_docs_goes_by_what_it_names(cluster: Cluster) -> None:
    """Where it names no metric, Kubernetes adds one: the CPU."""
    (block,) = re.findall(r"  ```yaml\n(  apiVersion: autoscaling.*?)  ```", text_of_models(), re.DOTALL)
    written = yaml.safe_load(textwrap.dedent(block))
    served = "autoscaling/v2" if cluster.minor >= 23 else "autoscaling/v2beta2"
    cluster.builtin.apply(written | {"apiVersion": served})
    try:
        kind = "horizontalpodautoscalers.{1}.{0}".format(*served.split("/"))
        assert holds(cluster.builtin.get(kind, "qwen3-8b")["spec"], written["spec"])
    finally:
        cluster.builtin("delete", "hpa", "qwen3-8b")


def test_their_names_differ() -> None:
    """They can all be applied side by side."""
    models = [Model.from_object(each) for path in EXAMPLES for each in documents(path) if each["kind"] == "Model"]
    names = [name for model in models for name in {*model.names, model.metadata.name}]
    assert sorted(names) == sorted(set(names))
