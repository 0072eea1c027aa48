"""What is billed where an engine's figures are no figures, or where the request came to nothing."""

from __future__ import annotations

from typing import Any

import pytest
from cloudach_gateway.proxy.stream.tally import Tally


def chunk(text: str = "x", **usage: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], **({"usage": usage} if usage else {})}


@pytest.mark.parametrize("figure", [5.0, -1, "5", True, [], {}, None])
def test_a_figure_that_is_none_does_not_wipe_out_what_was_counted(figure: Any) -> None:
    tally = Tally(estimate=9, by_chunk=True)
    tally.prompt_sent()
    for _ in range(20):
        tally.take_chunk(chunk(prompt_tokens=figure, completion_tokens=figure), answers_per_prompt=1)
    assert tally.so_far() == (9, 20, 0)


def test_a_figure_that_is_none_leaves_the_one_before() -> None:
    tally = Tally(estimate=9, by_chunk=True)
    tally.take_chunk(chunk(prompt_tokens=4, completion_tokens=30), answers_per_prompt=1)
    tally.take_chunk(chunk(prompt_tokens=-1, completion_tokens=-1), answers_per_prompt=1)
    assert tally.so_far() == (4, 31, 0)


def test_who_got_nothing_is_not_told_of_cached_tokens_either() -> None:
    tally = Tally(estimate=9)
    tally.prompt_sent()
    details = {"cached_tokens": 7}
    tally.take_chunk(
        chunk("", prompt_tokens=10, completion_tokens=0, prompt_tokens_details=details), answers_per_prompt=1
    )
    assert tally.so_far() == (10, 0, 7)
    tally.came_to_nothing()
    assert tally.so_far() == (0, 0, 0)
