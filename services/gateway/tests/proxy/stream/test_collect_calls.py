"""Tool calls put together from a stream's pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudach_gateway.proxy.engine.chunk import BadChunk, TooLarge
from cloudach_gateway.proxy.stream.client_view import ClientView
from cloudach_gateway.proxy.stream.collect import Collector, can_collect
from cloudach_gateway.proxy.stream.tally import Tally

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def gathered(*deltas: dict[str, Any], forced: bool = False, vllm: bool = True, largest: int = 10_000) -> dict[str, Any]:
    view = ClientView("m", chat=True, forced_call=forced)
    collector = Collector(view, Tally(), vllm=vllm, largest=largest)
    for delta in ({"role": "assistant", "content": ""}, *deltas):
        collector.feed(json.dumps({"id": "c", "choices": [{"index": 0, "delta": delta}]}).encode())
    [found] = json.loads(collector.answer())["choices"]
    message: dict[str, Any] = found["message"]
    return message


def piece(index: int | None, *, id: str | None = None, **function: str) -> dict[str, Any]:
    named = {} if index is None else {"index": index}
    return named | ({} if id is None else {"id": id, "type": "function"}) | {"function": function}


def calls(*deltas: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    told = gathered(*({"tool_calls": pieces} for pieces in deltas), largest=10**8)["tool_calls"]
    assert all(set(call) == {"id", "type", "function"} for call in told)
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in told]


def test_arguments_come_a_little_at_a_time() -> None:
    assert calls(
        [piece(0, id="a", name="f", arguments="")],
        [piece(0, arguments='{"x":')],
        [piece(0, arguments="1}"), piece(1, id="b", name="g")],
        [piece(1, arguments="{}")],
    ) == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def test_calls_side_by_side() -> None:
    assert calls(
        [piece(1, id="b", name="g", arguments="2"), piece(0, id="a", name="f", arguments="1")],
        [piece(0, arguments="1"), piece(1, arguments="2")],
    ) == [("a", "f", "11"), ("b", "g", "22")]


def test_an_engine_that_numbers_no_calls() -> None:
    assert calls(
        [piece(None, id="a", name="f", arguments="{")],
        [piece(None, arguments="}")],
        [piece(None, id="b", name="g", arguments="{}")],
    ) == [("a", "f", "{}"), ("b", "g", "{}")]


def test_an_engine_that_gives_each_call_the_same_number() -> None:
    assert calls(
        [piece(0, id="a", name="f", arguments='{"x":1}'), piece(0, id="b", name="f", arguments="{")],
        [piece(0, arguments="}")],
        [piece(0, id="c", name="g", arguments="{}")],
    ) == [("a", "f", '{"x":1}'), ("b", "f", "{}"), ("c", "g", "{}")]


def test_many_pieces_without_a_number() -> None:
    """Each is added to the last call at once: to look for it among all took hours with this many."""
    [*_, last] = calls([piece(None, id="a", name="f")] * 200_000 + [piece(None, arguments="1")] * 200_000)
    assert len(last[2]) == 200_000


def test_an_id_that_is_new_in_each_piece_begins_no_call() -> None:
    assert calls(
        [piece(0, id="a", name="f", arguments="")],
        [piece(0, id="b", arguments="{")],
        [piece(0, id="c", arguments="}")],
    ) == [("a", "f", "{}")]


@pytest.mark.parametrize("nothing", [[], None])
def test_an_engine_that_names_calls_in_each_chunk_has_them_still(nothing: Any) -> None:
    assert calls([piece(0, id="a", name="f", arguments="{}")], nothing) == [("a", "f", "{}")]
    assert "tool_calls" not in gathered({"content": "a", "tool_calls": nothing})


def test_a_call_without_arguments() -> None:
    assert calls([piece(0, id="a", name="f")]) == [("a", "f", "")]


def test_calls_of_other_types_and_old_functions() -> None:
    message = gathered(
        {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": "l"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "s"}}]},
    )
    assert message["tool_calls"] == [{"id": "a", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]
    message = gathered({"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}})
    assert message["function_call"] == {"name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("forced", "vllm", "said", "expected"),
    [
        (False, True, None, None),
        (False, True, "\n\n", None),
        (False, True, "Let me see.", "Let me see."),
        (False, False, " ", None),
        (True, True, None, ""),  # as vLLM has it where a call is forced
        (True, False, None, None),
    ],
)
def test_content_beside_calls(forced: bool, vllm: bool, said: str | None, expected: str | None) -> None:
    call = {"tool_calls": [piece(0, id="a", name="f")]}
    assert gathered({"content": said}, call, forced=forced, vllm=vllm)["content"] == expected


def test_content_without_calls_stays() -> None:
    message = gathered({"content": " "})
    assert message["content"] == " "
    assert "tool_calls" not in message


@pytest.mark.parametrize("pieces", [5, "x", [5], [None], [[]], [{"index": "x"}], [{"index": [1]}]])
def test_what_is_no_piece(pieces: Any) -> None:
    with pytest.raises(BadChunk):
        gathered({"tool_calls": pieces})


def test_calls_count_for_the_largest_answer() -> None:
    with pytest.raises(TooLarge):
        gathered(*({"tool_calls": [piece(0, arguments="x" * 1000)]} for _ in range(20)))
    with pytest.raises(TooLarge):
        gathered({"tool_calls": [{"index": number} for number in range(1000)]})


def test_which_requests_are_asked_whole() -> None:
    assert can_collect({"tools": [TOOL], "tool_choice": "required"})
    assert can_collect({"functions": [{}], "tools": []})
    assert not can_collect({"tools": [TOOL], "prompt_logprobs": 0})


@pytest.mark.parametrize(("forced", "content"), [(True, ""), (False, None)])
def test_content_beside_reasoning_alone_is_blank_where_a_call_is_forced(forced: bool, content: str | None) -> None:
    """As vLLM 0.29 has it in whole answers."""
    assert gathered({"reasoning": "Hm"}, forced=forced)["content"] == content
