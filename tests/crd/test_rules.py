"""Every rule of a Model: refused by the API server at apply time, and by who reads it, with the same words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from cloudach_model_api import InvalidModel, Model
from cloudach_model_api.part import Part, Rule

from tests.support.kube import Cluster

from .cases import RULES, SCHEMA, Case

pytestmark = pytest.mark.timeout(600)  # the first test waits for a server

CASES = pytest.mark.parametrize("case", RULES + SCHEMA, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def refusals(cluster: Cluster) -> dict[str, str]:
    """What kubectl says of each bad Model, by name; one call, for each takes a while."""
    objects = "\n---\n".join(json.dumps(case.model()) for case in RULES + SCHEMA)
    done = cluster.kubectl.run("create", "--dry-run=server", "-f", "-", stdin=objects)
    assert done.stdout == ""
    parts = re.split(
        r'^Error from server \(Invalid\): .*?Model\S* "([^"]+)" is invalid: ?', done.stderr, flags=re.MULTILINE
    )
    assert parts[0] == ""
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _rules(part: type[Part] = Part) -> Iterator[Rule]:
    yield from part.rules
    for child in part.__subclasses__():
        yield from _rules(child)


@CASES
def test_the_api_server_refuses_it(refusals: dict[str, str], case: Case) -> None:
    said = refusals[case.name]
    assert case.said in said
    # Of a list with twins the server names the second one, and the types name the list. It writes a map's key as [key].
    said = re.sub(r"\[([a-z]+)\]:", r".\1:", said)
    assert re.search(rf"(^|[\s[]){re.escape(case.path)}(\[\d+\])?:", said) or not case.path, said


@CASES
def test_who_reads_it_refuses_it_with_the_same_words(case: Case) -> None:
    with pytest.raises(InvalidModel) as caught:
        Model.from_object(case.model())
    assert any(
        error.path == (case.path or "metadata.name") and case.said in error.message for error in caught.value.errors
    ), caught.value.errors


def test_no_rule_is_left_out() -> None:
    untested = {rule.message for rule in _rules() if rule.cel is not None and rule.check is not None} - {
        rule.message for rule in _rules() if any(rule.message.startswith(case.said) for case in RULES)
    }
    assert untested == set()
