"""Whose an object is that has the name of one of a Model's."""

from __future__ import annotations

from typing import Any

import pytest
from cloudach_controller.decide.belonging import belongs, whose

MODEL = {"name": "qwen", "uid": "new"}
OURS = {"cloudach.dev/model": "qwen", "app.kubernetes.io/managed-by": "cloudach-controller"}


def owner(**changes: Any) -> dict[str, Any]:
    return {"apiVersion": "cloudach.dev/v1alpha1", "kind": "Model", "name": "qwen", "uid": "old"} | changes


@pytest.mark.parametrize(
    ("metadata", "is_ours"),
    [
        ({"ownerReferences": [owner(uid="new")]}, True),
        ({"ownerReferences": [owner()]}, True),  # of the Model before it, or from a backup
        ({"ownerReferences": [owner(apiVersion="cloudach.dev/v1")]}, True),
        ({"ownerReferences": [owner(name="llama")], "labels": OURS}, False),
        ({"ownerReferences": [owner(kind="Release")], "labels": OURS}, False),
        ({"ownerReferences": [owner(apiVersion="example.com/v1")], "labels": OURS}, False),
        ({"labels": OURS}, True),  # its owner was taken away
        ({"labels": {**OURS, "cloudach.dev/model": "llama"}}, False),
        ({"labels": {"cloudach.dev/model": "qwen"}}, False),
        ({}, False),
    ],
)
def test_belongs(metadata: dict[str, Any], is_ours: bool) -> None:
    assert belongs({"metadata": metadata}, MODEL) is is_ours


def test_the_owner_is_named() -> None:
    assert whose({"metadata": {"ownerReferences": [owner(kind="Release", name="x")]}}) == "it belongs to Release x"
    assert whose({"metadata": {}}) == "it belongs to no Model"
