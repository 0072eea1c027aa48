from __future__ import annotations

from tests.vllm_suite.engines import Asked
from tests.vllm_suite.verdict import judge


def _ran(test: str, direct: str, gateway: str, at: tuple[str, str] = ("", "")) -> list[dict[str, str]]:
    return [
        {"test": test, "way": "direct", "node": f"{test}-d", "outcome": direct, "said": "d", "at": at[0]},
        {"test": test, "way": "gateway", "node": f"{test}-g", "outcome": gateway, "said": "g", "at": at[1]},
    ]


def test_only_what_fails_through_the_gateway_alone_counts_against_it() -> None:
    results = [
        *_ran("a.py::fine", "passed", "passed"),
        *_ran("a.py::small_model", "failed", "failed", ("a.py:7", "a.py:7")),
        *_ran("a.py::elsewhere", "failed", "failed", ("a.py:7", "a.py:3")),
        *_ran("a.py::broken[x-1]", "passed", "failed"),
        *_ran("a.py::known[y]", "passed", "failed"),
        *_ran("a.py::better", "failed", "passed"),
    ]
    verdict = judge(results, {"a.py::known[*": "on purpose", "a.py::gone": "no more"})
    assert not verdict.good
    assert verdict.unexpected == {"a.py::broken[x-1]": "g", "a.py::elsewhere": "g"}
    assert verdict.explained == {"a.py::known[y]": "on purpose"}
    assert (verdict.passed, verdict.failed_both, verdict.only_direct) == (
        ["a.py::fine"],
        ["a.py::small_model"],
        ["a.py::better"],
    )
    again = ("a.py::elsewhere", "a.py::broken[x-1]")
    assert verdict.nodes == [f"{test}-{way}" for test in again for way in "dg"]
    assert verdict.needless == ["a.py::gone"]


def test_a_later_try_counts() -> None:
    results = [*_ran("a.py::sampled", "passed", "failed"), *_ran("a.py::sampled", "passed", "passed")]
    assert judge(results, {}).passed == ["a.py::sampled"]


def test_a_failure_that_vllm_alone_has_shown_in_any_try_is_none_of_the_gateway() -> None:
    """A test that samples times out in one try and fails at its assertion in the next, either way."""
    first = _ran("a.py::sampled", "failed", "failed", ("timeout", "a.py:7"))
    assert not judge(first, {}).failed_both
    second = _ran("a.py::sampled", "failed", "failed", ("a.py:7", "timeout"))
    assert judge([*first, *second], {}).failed_both == ["a.py::sampled"]
    third = _ran("a.py::sampled", "failed", "failed", ("a.py:7", "a.py:9"))
    assert judge([*first, *third], {}).unexpected == {"a.py::sampled": "g"}


def test_a_run_in_which_nothing_passed_is_no_good_one() -> None:
    assert not judge([], {}).good
    assert judge(_ran("a.py::fine", "passed", "passed"), {}).good


def test_arguments_for_weights_and_hardware_are_replaced() -> None:
    args = ["--dtype", "bfloat16", "--max-model-len", "128", "--enable-lora", "--lora-modules", "sql=/a", "x=/b"]
    asked = Asked.of("some/model", [*args, "--max-lora-rank", "64", "--enforce-eager"], {"B": "2", "A": "1"})
    assert asked.names == ("some/model", "sql", "x")
    assert asked.args == ("--max-model-len", "128", "--enforce-eager")
    assert asked.env == (("A", "1"), ("B", "2"))
