from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from cloudach_gateway.proxy.engine.chunk import BadChunk, EngineReportedError
from cloudach_gateway.proxy.stream.rewrite import ClientView, StreamRewriter, UsageForm
from cloudach_gateway.proxy.stream.tally import Tally

HEAD = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"engine-name"'


def chunk(choice: str, *, more: str = "") -> bytes:
    return f'{{{HEAD},"choices":[{choice}]{more}}}'.encode()


ROLE = chunk(
    '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}',
    more=',"prompt_token_ids":[1,2,3]',
)
LAST = chunk(
    '{"index":0,"delta":{"content":"!"},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":[9]}'
)
USAGE = chunk("", more=',"usage":{"prompt_tokens":3,"total_tokens":7,"completion_tokens":4}')


def text(content: str, ids: list[int]) -> bytes:
    delta = json.dumps({"content": content}, ensure_ascii=False, separators=(",", ":"))
    return chunk(f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null,"token_ids":{json.dumps(ids)}}}')


def run(view: ClientView, payloads: list[bytes]) -> tuple[list[dict[str, Any]], Tally]:
    tally = Tally()
    rewriter = StreamRewriter(view, tally)
    data = b"".join([rewriter.feed(p) for p in payloads]) + rewriter.finish()
    assert data.endswith(b"data: [DONE]\n\n")
    frames = data.split(b"\n\n")[:-2]
    assert all(f.startswith(b"data: ") for f in frames)
    return [json.loads(f[6:]) for f in frames], tally


STREAM = [ROLE, text("a", [5]), text('tricky ,"token_ids":[1,2] "finish_reason":null', [6, 7]), LAST, USAGE]
USAGE_FIGURES = {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4}


def test_the_guides_form_usage_rides_on_the_last_choice() -> None:
    chunks, tally = run(ClientView(model="alias"), STREAM)
    assert len(chunks) == 4
    assert all(c["choices"] for c in chunks), "the guide's clients read choices[0] unguarded"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[2]["choices"][0]["delta"]["content"] == 'tricky ,"token_ids":[1,2] "finish_reason":null'
    assert [c.get("usage") for c in chunks] == [None, None, None, USAGE_FIGURES]
    assert "usage" not in chunks[0]
    assert {c["model"] for c in chunks} == {"alias"}
    assert {c["id"] for c in chunks} == {"chatcmpl-1"}
    assert (tally.prompt_tokens, tally.completion_tokens) == (3, 4)


def test_the_engines_fingerprint_stands_beside_the_usage() -> None:
    stream = [*STREAM[:-1], USAGE[:-1] + b',"system_fingerprint":"vllm-1"}']
    chunks, _ = run(ClientView(model="alias"), stream)
    assert (chunks[-1]["usage"], chunks[-1]["system_fingerprint"]) == (USAGE_FIGURES, "vllm-1")
    assert not any("system_fingerprint" in chunk for chunk in chunks[:-1])


def test_a_chunk_that_says_nothing_does_not_part_the_last_choice_from_its_usage() -> None:
    for nothing in (chunk(""), chunk("", more=',"usage":null'), chunk("", more=',"prompt_filter_results":[]')):
        chunks, _ = run(ClientView(model="m"), [*STREAM[:-1], nothing, USAGE])
        assert chunks == run(ClientView(model="m"), STREAM)[0]


def test_nothing_the_gateway_asked_for_leaks() -> None:
    chunks, _ = run(ClientView(model="alias"), STREAM)
    assert "token_ids" not in json.dumps([{**c, "choices": [{**c["choices"][0], "delta": None}]} for c in chunks])


def test_openais_extra_usage_chunk() -> None:
    chunks, _ = run(ClientView(model="m", usage=UsageForm.EXTRA_CHUNK), STREAM)
    assert [c["usage"] for c in chunks] == [None, None, None, None, USAGE_FIGURES]
    assert chunks[-1]["choices"] == []


def test_no_usage_at_all() -> None:
    chunks, tally = run(ClientView(model="m", usage=UsageForm.NONE), STREAM)
    assert len(chunks) == 4
    assert not any("usage" in c for c in chunks)
    assert tally.completion_tokens == 4


def test_token_ids_for_those_who_asked() -> None:
    chunks, tally = run(ClientView(model="m", token_ids=True), STREAM)
    assert chunks[0]["prompt_token_ids"] == [1, 2, 3]
    assert [c["choices"][0].get("token_ids") for c in chunks] == [None, [5], [6, 7], [9]]
    assert tally.completion_tokens == 4


def test_the_count_is_right_at_every_cut() -> None:
    for cut, expected in enumerate([0, 0, 1, 3, 4, 4]):
        tally = Tally()
        rewriter = StreamRewriter(ClientView(model="m"), tally)
        for payload in STREAM[:cut]:
            rewriter.feed(payload)
        assert tally.completion_tokens == expected
        assert tally.prompt_tokens == (3 if cut else 0)


def test_empty_deltas_that_only_carry_token_ids_are_dropped() -> None:
    placeholder = chunk('{"index":0,"delta":{},"logprobs":null,"finish_reason":null,"token_ids":[4,4]}')
    for stream in ([ROLE, placeholder, *STREAM[1:]], [ROLE, text("a", [5]), placeholder, *STREAM[2:]]):
        tally = Tally()
        rewriter = StreamRewriter(ClientView(model="m"), tally)
        out = [rewriter.feed(p) for p in stream]
        assert out.count(b"") == 2  # the placeholder, and the last chunk, which waits for its usage
        assert tally.completion_tokens == 6  # as many were seen, whatever the engine states
    kept, _ = run(ClientView(model="m", token_ids=True), [ROLE, placeholder, *STREAM[1:]])
    assert len(kept) == 5


def test_an_engine_that_gives_no_usage_gets_it_counted() -> None:
    chunks, _ = run(ClientView(model="m"), STREAM[:-1])
    assert chunks[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_several_choices() -> None:
    def of(index: int, finish: str) -> bytes:
        return chunk(f'{{"index":{index},"delta":{{"content":"x"}},"finish_reason":{finish},"token_ids":[1]}}')

    stream = [ROLE, of(0, "null"), of(1, "null"), of(0, '"stop"'), of(1, "null"), of(1, '"stop"'), USAGE]
    chunks, tally = run(ClientView(model="m"), stream)
    assert len(chunks) == 6
    assert [bool(c.get("usage")) for c in chunks] == [False] * 5 + [True]
    assert [c["choices"][0]["index"] for c in chunks] == [0, 0, 1, 0, 1, 1]
    assert tally.completion_tokens == 5  # as many were seen, whatever the engine states


def test_loose_json_is_understood_too() -> None:
    loose = [json.dumps(json.loads(p), indent=1).encode() for p in STREAM]
    assert run(ClientView(model="m"), loose)[0] == run(ClientView(model="m"), STREAM)[0]


@pytest.mark.parametrize("payload", [b'{"error":{"message":"x","code":500}}', b'{"object":"error","error":"text"}'])
def test_an_error_frame_is_recognised(payload: bytes) -> None:
    with pytest.raises(EngineReportedError):
        StreamRewriter(ClientView(model="m"), Tally()).feed(payload)


@pytest.mark.parametrize("payload", [b"{", b"[]", b"hello", b'{"choices":[null]}', b'{"choices":[3]}'])
def test_what_is_no_chunk_is_refused(payload: bytes) -> None:
    with pytest.raises(BadChunk):
        StreamRewriter(ClientView(model="m"), Tally()).feed(payload)


CALL = '{"index":0,"delta":{"tool_calls":[%s]},"logprobs":null,"finish_reason":null,"token_ids":[5]}'


def test_the_chunk_that_names_a_tools_function_has_its_arguments() -> None:
    """OpenAI sends them empty, and some clients add to them what comes next; vLLM leaves them out."""
    named = '{"id":"call-1","type":"function","index":0,"function":{"name":"f"}}'
    whole = '{"id":"call-2","type":"function","index":1,"function":{"name":"g","arguments":"{}"}}'
    more = '{"index":0,"function":{"arguments":"{}"}}'
    stream = [ROLE, chunk(CALL % f"{named},{whole}"), chunk(CALL % more), LAST, USAGE]
    for view in (ClientView(model="m"), ClientView(model="m", token_ids=True, usage=UsageForm.EVERY_CHUNK)):
        chunks, _ = run(view, stream)
        calls = [c["choices"][0]["delta"].get("tool_calls") for c in chunks[1:3]]
        assert [[call["function"] for call in told] for told in calls] == [
            [{"name": "f", "arguments": ""}, {"name": "g", "arguments": "{}"}],
            [{"arguments": "{}"}],
        ]


DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
    "cost": 0.5,
}


@pytest.mark.parametrize("by_itself", [True, False])
def test_details_of_usage_reach_the_client_in_the_guides_form(by_itself: bool) -> None:
    """by_itself: whether the engine states usage in a chunk of its own, as it was asked, or on the last choice."""
    usage = {**USAGE_FIGURES, **DETAILS}
    if by_itself:
        stream = [*STREAM[:-1], chunk("", more=f',"usage":{json.dumps(usage)}')]
    else:
        stream = [*STREAM[:-2], LAST[:-1] + f',"usage":{json.dumps(usage)}}}'.encode()]
    chunks, tally = run(ClientView(model="m"), stream)
    assert chunks[-1]["usage"] == usage
    assert tally.so_far() == (3, 4, 2)


def test_details_of_several_choices_are_theirs_together() -> None:
    stream = [ROLE]
    for index, reasoning in ((0, 1), (1, 4), (0, 2)):
        usage = {**USAGE_FIGURES, **DETAILS, "completion_tokens_details": {"reasoning_tokens": reasoning}}
        choice = f'{{"index":{index},"delta":{{"content":"x"}},"finish_reason":"stop"}}'
        stream.append(chunk(choice, more=f',"usage":{json.dumps(usage)}'))
    chunks, _ = run(ClientView(model="m", answers_per_prompt=2), stream)
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 8,
        "total_tokens": 11,
        **DETAILS,
        "completion_tokens_details": {"reasoning_tokens": 6},
    }


@pytest.mark.parametrize("reason", ["null", '"stop"'])
def test_a_huge_chunk_takes_about_the_memory_that_it_has(reason: str) -> None:
    """To find out whether it is a running chunk took a hundred times as much."""
    said = 'quotes \\" ' * 100_000
    choice = f'{{"index":0,"delta":{{"content":"{said}"}},"logprobs":null,"finish_reason":{reason},"token_ids":[5]}}'
    payload = chunk(choice)
    rewriter = StreamRewriter(ClientView(model="alias"), Tally())
    tracemalloc.start()
    try:
        rewriter.feed(payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 25 * len(payload)  # orjson takes half of that
