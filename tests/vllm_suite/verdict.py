"""What a run of vLLM's suite says about the gateway: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass
class Verdict:
    """Tests by what they did.

    `failed_both` failed through the gateway in a place where they failed against vLLM alone, too. `unexpected` failed
    through the gateway alone, or in another place, without a known reason; `nodes` are pytest's names of these.
    """

    passed: list[str] = field(default_factory=list)
    failed_both: list[str] = field(default_factory=list)
    only_direct: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    explained: dict[str, str] = field(default_factory=dict)
    unexpected: dict[str, str] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return bool(self.passed) and not self.unexpected


def judge(results: Iterable[Mapping[str, Any]], known: Mapping[str, str]) -> Verdict:
    """Sorts results: one entry for each test and way (`direct`, `gateway`), `at` the line at which it failed.

    A later entry takes an earlier one's place, but the places at which vLLM alone failed add up. known: reasons by a
    pattern of the test's name.
    `needless` are the patterns that no failing test has needed.
    """
    by_test: dict[str, dict[str, Mapping[str, Any]]] = {}
    places: dict[str, set[str]] = {}
    for one in results:
        by_test.setdefault(one["test"], {})[one["way"]] = one
        if one["way"] == "direct":
            places.setdefault(one["test"], set()).add(one["at"])
    verdict, used = Verdict(), set()
    for test, ways in by_test.items():
        outcome = {way: one["outcome"] for way, one in ways.items()}
        alone = outcome.get("direct") == "passed"
        if outcome.get("gateway") == "failed" and (alone or ways["gateway"]["at"] not in places.get(test, ())):
            pattern = next((pattern for pattern in known if fnmatchcase(test, _literally(pattern))), None)
            if pattern is None:
                verdict.unexpected[test] = ways["gateway"]["said"]
                verdict.nodes += [one["node"] for one in ways.values()]
            else:
                used.add(pattern)
                verdict.explained[test] = known[pattern]
        elif outcome.get("gateway") == "failed":
            verdict.failed_both.append(test)
        elif "skipped" in outcome.values():
            verdict.skipped.append(test)
        elif outcome.get("direct") == "failed":
            verdict.only_direct.append(test)
        else:
            verdict.passed.append(test)
    verdict.needless = [pattern for pattern in known if pattern not in used]
    return verdict


def _literally(pattern: str) -> str:
    """Only `*` is a wildcard: the names hold brackets."""
    return pattern.replace("[", "[[]")
