"""Plans and adapted payloads; what they amount to with an engine is in tests/data_plane/test_continuation.py."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from cloudach_gateway.proxy.continuation.kinds import CHAT, COMPLETIONS, Kind
from cloudach_gateway.proxy.continuation.plan import CannotContinue, Continuation, detokenize_body, kind_of, plan
from cloudach_gateway.proxy.engine.chunk import BadChunk, EngineReportedError, NotReproducible
from cloudach_gateway.proxy.stream.client_view import ClientView
from cloudach_gateway.proxy.stream.rewrite import StreamRewriter
from cloudach_gateway.proxy.stream.tally import Tally
from cloudach_gateway.proxy.stream.transcript import WINDOW, Transcript

PROMPT = [1, 9690, 198]

# vLLM 0.29's own bytes, apart from the ids' length.
CHAT_HEAD = b'{"id":"chatcmpl-99e0","object":"chat.completion.chunk","created":1795405109,"model":"sim","choices":['
TEXT_HEAD = b'{"id":"cmpl-8a8b","object":"text_completion","created":1795405134,"model":"sim","choices":['
ROLE = (
    CHAT_HEAD + b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
    b',"prompt_token_ids":[1,9690,198],"prompt_text":null}'
)


def chat_chunk(content: str, *ids: int, end: str = "null") -> bytes:
    delta = b'{"content":%b}' % orjson.dumps(content) if content else b"{}"
    ends = b'"finish_reason":%b,%b' % (end.encode(), b'"stop_reason":null,' if end != "null" else b"")
    return CHAT_HEAD + b'{"index":0,"delta":%b,"logprobs":null,%b"token_ids":%b}]}' % (
        delta,
        ends,
        orjson.dumps(list(ids)),
    )


def text_chunk(text: str, *ids: int, end: str = "null", prompt: str = "null", stop: str = "null") -> bytes:
    return TEXT_HEAD + (
        b'{"index":0,"text":%b,"logprobs":null,"finish_reason":%b,"stop_reason":%b,"prompt_token_ids":%b,"token_ids":%b}]}'
        % (orjson.dumps(text), end.encode(), stop.encode(), prompt.encode(), orjson.dumps(list(ids)))
    )


TEXT_USAGE = (
    TEXT_HEAD
    + b'],"usage":{"prompt_tokens":7,"total_tokens":34,"completion_tokens":27},"system_fingerprint":"vllm-0.29"}'
)


def chat(**fields: Any) -> dict[str, Any]:
    return {
        "model": "sim",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "max_tokens": 20,
        "temperature": 0,
        **fields,
    }


def completion(**fields: Any) -> dict[str, Any]:
    body = chat(prompt="Hi", **fields)
    del body["messages"]
    return body


def heard(*payloads: bytes, prompt: list[int] | None = PROMPT) -> Transcript:
    transcript = Transcript()
    transcript.prompt_ids = prompt
    for payload in payloads:
        transcript.recent.append(payload)
        for choice in json.loads(payload)["choices"]:
            transcript.ids.extend(b"".join(b"%d," % token for token in choice.get("token_ids") or ()))
    return transcript


def asked(more: Continuation) -> dict[str, Any]:
    assert more.body is not None
    body: dict[str, Any] = json.loads(more.body)
    return body


def resumed(fields: dict[str, Any] | None = None, *payloads: bytes, **rest: Any) -> Continuation:
    transcript = heard(ROLE, *(payloads or (chat_chunk("The", 504), chat_chunk(" capital", 3575))))
    return plan(CHAT, fields or chat(), transcript, **rest)


def test_what_is_asked_for() -> None:
    more = resumed()
    assert more.path == COMPLETIONS.path
    assert not more.restarted
    assert asked(more) == {
        "model": "sim",
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "temperature": 0,
        "prompt": [*PROMPT, 504, 3575],
        "max_tokens": 18,
    }


def test_running_chunks_are_the_engines_own_bytes() -> None:
    more = resumed()
    first = text_chunk(" of", 282, prompt="[1,9690,198,504,3575]")
    assert more.adapt(first) == chat_chunk(" of", 282)
    for text in (" the", ' "né"\n\t\u2028 🐙 \x01', ',"token_ids":[1] "finish_reason":null,"logprobs":null'):
        assert more.adapt(text_chunk(text, 5, 6)) == chat_chunk(text, 5, 6)
    assert more.adapt(text_chunk("", 7)) == chat_chunk("", 7)
    assert more.adapt(text_chunk("")) is None
    assert more.adapt(text_chunk("!", 8, end='"length"')) == chat_chunk("!", 8, end='"length"')
    usage = more.adapt(TEXT_USAGE)
    assert usage == (
        CHAT_HEAD + b'],"usage":{"prompt_tokens":3,"total_tokens":32,"completion_tokens":29},'
        b'"system_fingerprint":"vllm-0.29"}'
    )


def test_the_rewriter_edits_them_as_bytes() -> None:
    more, tally = resumed(), Tally()
    rewriter = StreamRewriter(ClientView(model="alias"), tally)
    rewriter.feed(ROLE)
    rewriter.feed(chat_chunk("The", 504))
    for text in (" of", " the"):
        adapted = more.adapt(text_chunk(text, 5))
        assert adapted is not None
        relayed = rewriter.relay(b"data: %b\n\n" % adapted)
        assert relayed is not None
        assert b'"content":"%b"' % text.encode() in relayed
    assert tally.completion_tokens == 3


def test_completions_keep_their_form() -> None:
    first = text_chunk(" Tokyo", 19081, prompt="[1,9690,198]").replace(b"cmpl-8a8b", b"cmpl-first")
    more = plan(COMPLETIONS, completion(), heard(first))
    for sent in (text_chunk(",", 28, prompt="[1,9690,198,19081]"), text_chunk(" Os", 13956), text_chunk("", 2)):
        expected = sent.replace(b"cmpl-8a8b", b"cmpl-first").replace(b"[1,9690,198,19081]", b"null")
        assert more.adapt(sent) == expected


def test_any_other_form_of_json_is_understood() -> None:
    more = resumed()
    for text in (" of", " the"):
        loose = json.dumps(json.loads(text_chunk(text, 5)), indent=1).encode()
        assert more.adapt(loose) == chat_chunk(text, 5)


def test_what_the_engine_adds_is_kept() -> None:
    more = resumed()
    assert more.adapt(text_chunk(" of", 5)) is not None
    padded = text_chunk(" the", 6)[:-1] + b',"padding":"xxx"}'
    assert more.adapt(padded) == chat_chunk(" the", 6)[:-1] + b',"padding":"xxx"}'


def test_the_cache_of_a_continuation_is_not_the_tenants() -> None:
    usage = TEXT_USAGE.replace(b"27}", b'27,"prompt_tokens_details":{"cached_tokens":6}},"metrics":{"ttft":1}')
    adapted = resumed().adapt(usage)
    assert adapted is not None
    told = json.loads(adapted)
    assert told["usage"]["prompt_tokens_details"] is None
    assert "metrics" not in told


def test_errors_and_rubbish() -> None:
    more = resumed()
    with pytest.raises(EngineReportedError):
        more.adapt(b'{"error":{"message":"EngineCore encountered an issue","code":500}}')
    for payload in (b"{", b"[]", b"5", b'{"choices":[null]}', b'{"choices":[{"text":3,"token_ids":null}]}'):
        with pytest.raises(BadChunk):
            more.adapt(payload)


def test_held_back_characters_are_generated_again() -> None:
    transcript = heard(ROLE, chat_chunk("Oh ", 1), chat_chunk("", 240), chat_chunk("", 159))
    more = plan(CHAT, chat(), transcript)
    assert asked(more)["prompt"] == [*PROMPT, 1]
    assert asked(more)["max_tokens"] == 19
    assert (more.take_over(), more.take_over()) == (2, 0)
    assert bytes(transcript.ids) == b"1,"
    assert list(transcript.recent) == [ROLE, chat_chunk("Oh ", 1)]
    assert more.adapt(text_chunk("🐙", 240, 159, 144, 153)) == chat_chunk("🐙", 240, 159, 144, 153)


def test_a_client_that_sees_token_ids_gets_each_once() -> None:
    transcript = heard(ROLE, chat_chunk("Oh ", 1), chat_chunk("", 240), chat_chunk("", 159))
    more = plan(CHAT, chat(), transcript, ids_shown=True)
    assert more.take_over() == 0
    assert more.adapt(text_chunk("", 240)) is None
    assert more.adapt(text_chunk("🐙 so", 159, 144, 9)) == chat_chunk("🐙 so", 144, 9)
    assert transcript.doubtful == 5
    with pytest.raises(NotReproducible):
        plan(CHAT, chat(), transcript, ids_shown=True).adapt(text_chunk("", 241))
    with pytest.raises(NotReproducible):
        plan(CHAT, chat(), transcript, ids_shown=True).adapt(text_chunk("", 240, end='"stop"'))


COARSE = (chat_chunk("Oh", 1), chat_chunk(" my dear", 2, 3, 4))


def test_text_that_was_sent_is_not_sent_again() -> None:
    more = resumed(None, *COARSE)
    assert asked(more)["prompt"] == [*PROMPT, 1]
    assert more.adapt(text_chunk(" my", 2)) == chat_chunk("", 2)
    assert more.adapt(text_chunk(" dear me", 3, 4)) == chat_chunk(" me", 3, 4)


def test_other_text_than_was_sent() -> None:
    for text in (" no", " my deer", "x"):
        with pytest.raises(NotReproducible):
            resumed(None, *COARSE).adapt(text_chunk(text, 2))
    with pytest.raises(NotReproducible):
        resumed(None, *COARSE).adapt(text_chunk(" my", 2, end='"stop"'))


def test_a_sampled_answer_is_hardly_drawn_again() -> None:
    sampled = chat(temperature=1)
    with pytest.raises(CannotContinue) as refused:
        resumed(sampled, *COARSE)
    assert refused.value.reason == "sampled text to come again"
    assert resumed(sampled, COARSE[0], chat_chunk(" my", 2, 3)).redrawn
    assert not resumed(sampled).redrawn
    assert not resumed(None, *COARSE).redrawn


def test_the_text_of_tokens_can_be_asked_for() -> None:
    assert detokenize_body(CHAT, chat(), heard(ROLE, *COARSE)) is not None
    sampled, transcript = chat(temperature=1), heard(ROLE, *COARSE)
    body = detokenize_body(CHAT, sampled, transcript)
    assert body is not None
    assert json.loads(body) == {"model": "sim", "tokens": [2, 3, 4]}
    more = plan(CHAT, sampled, transcript, detokenized=" my dear")
    assert asked(more)["prompt"] == [*PROMPT, 1, 2, 3, 4]
    assert more.adapt(text_chunk(" me", 5)) == chat_chunk(" me", 5)
    with pytest.raises(CannotContinue):
        plan(CHAT, sampled, transcript, detokenized=" my dear\ufffd")


@pytest.mark.parametrize(
    ("fields", "payloads"),
    [
        (chat(temperature=1), COARSE[:1]),
        (chat(temperature=1), [COARSE[0], chat_chunk("", 2)]),
        (chat(temperature=1), []),
        (chat(temperature=1, n=2), COARSE),
    ],
)
def test_there_is_nothing_to_ask(fields: dict[str, Any], payloads: list[bytes]) -> None:
    assert detokenize_body(CHAT, fields, heard(ROLE, *payloads)) is None


def test_a_stop_string_across_the_cut_ends_the_answer() -> None:
    fields = chat(stop=["my end"], include_stop_str_in_output=True)
    more = resumed(fields, chat_chunk("Oh", 1), chat_chunk(" my", 2))
    assert asked(more)["logprobs"] == 0
    chunk = json.loads(text_chunk(" ending", 3, 4))
    chunk["choices"][0]["logprobs"] = {"tokens": [" end", "ing"]}
    adapted = more.adapt(orjson.dumps(chunk))
    expected = chat_chunk(" end", 3, end='"stop"').replace(b'"stop_reason":null', b'"stop_reason":"my end"')
    assert adapted == expected
    assert more.ended
    assert more.adapt(text_chunk(" it", 5)) is None
    usage = more.adapt(TEXT_USAGE)
    assert usage is not None
    assert json.loads(usage)["usage"]["completion_tokens"] == 3


def test_text_goes_on_lagging_behind_for_stop_strings() -> None:
    fields = chat(stop=["the end"], temperature=1)
    transcript = heard(
        ROLE, chat_chunk("", 1), chat_chunk("Once", 2), chat_chunk(" upon", 3)
    )  # " a time" was held back
    assert detokenize_body(CHAT, fields, transcript) is not None
    more = plan(CHAT, fields, transcript, detokenized="Once upon a tim")
    assert asked(more)["include_stop_str_in_output"] is True
    assert asked(more)["prompt"] == [*PROMPT, 1, 2, 3]
    assert more.adapt(text_chunk("e there was", 4)) == chat_chunk(" a time the", 4)
    ending = text_chunk(" the end", 5, end='"stop"', stop='"the end"')
    expected = chat_chunk("re was ", 5, end='"stop"').replace(b'"stop_reason":null', b'"stop_reason":"the end"')
    assert more.adapt(ending) == expected


def test_only_answers_of_known_paths_go_on() -> None:
    assert [kind_of(kind.path) for kind in (CHAT, COMPLETIONS)] == [CHAT, COMPLETIONS]
    with pytest.raises(CannotContinue, match="/v1/embeddings"):
        kind_of("/v1/embeddings")


@pytest.mark.parametrize("kind", [CHAT, COMPLETIONS])
def test_a_finished_answer_needs_no_engine(kind: Kind) -> None:
    last = chat_chunk("!", 9, end='"stop"') if kind.chat else text_chunk("!", 9, end='"stop"')
    more = plan(kind, chat() if kind.chat else completion(), heard(last))
    assert (more.body, more.final, more.take_over()) == (None, None, 0)


def test_nor_does_one_that_is_as_long_as_it_may_be() -> None:
    more = resumed(chat(max_tokens=2))
    assert more.body is None
    assert more.final == chat_chunk("", end='"length"')
    more = resumed(chat(max_tokens=None), max_model_len=5)
    assert more.final == chat_chunk("", end='"length"')
    more = plan(COMPLETIONS, completion(max_tokens=1), heard(text_chunk("a", 1)))
    assert more.final == text_chunk("", end='"length"')


def test_the_context_limits_an_answer_of_no_named_length() -> None:
    assert asked(resumed(chat(max_tokens=None), max_model_len=100))["max_tokens"] == 95
    assert asked(resumed(chat(max_tokens=50), max_model_len=40))["max_tokens"] == 35
    with pytest.raises(CannotContinue) as refused:
        resumed(chat(max_tokens=None))
    assert refused.value.reason == "unknown context length"


EVERYTHING = chat(n=2, seed=7, temperature=1, tools=[{}], response_format={"type": "json_object"}, unknown=1)


def test_an_answer_that_had_not_begun_is_asked_for_again() -> None:
    more = plan(CHAT, EVERYTHING, heard(ROLE))
    assert more.restarted
    assert (more.path, asked(more), more.take_over()) == (CHAT.path, EVERYTHING, 0)
    other = CHAT_HEAD.replace(b"99e0", b"0000").replace(b"109", b"999")
    assert more.adapt(ROLE.replace(CHAT_HEAD, other)) is None
    second = ROLE.replace(b'"index":0', b'"index":1')
    assert more.adapt(second.replace(CHAT_HEAD, other)) == second
    for chunk in (chat_chunk("a", 1), chat_chunk("b", 2), chat_chunk("", 3), chat_chunk("!", 4, end='"stop"')):
        assert more.adapt(chunk.replace(CHAT_HEAD, other)) == chunk
    usage = CHAT_HEAD + b'],"usage":{"prompt_tokens":3,"total_tokens":7,"completion_tokens":4}}'
    assert more.adapt(usage.replace(CHAT_HEAD, other)) == usage
    with pytest.raises(EngineReportedError):
        more.adapt(b'{"error":{"message":"x"}}')


def test_tokens_without_text_are_forgotten_then() -> None:
    transcript = heard(ROLE, chat_chunk("", 1), chat_chunk("", 2))
    more = plan(CHAT, EVERYTHING, transcript)
    assert more.restarted
    assert more.take_over() == 2
    assert (transcript.count, list(transcript.recent)) == (0, [ROLE])


def test_prompt_ids_are_told_once() -> None:
    transcript = heard(text_chunk("", 1, prompt="[1,9690,198]"))
    more = plan(COMPLETIONS, completion(), transcript)
    assert more.restarted
    assert more.adapt(text_chunk("a", 5, prompt="[1,9690,198]")) == text_chunk("a", 5)


def test_nothing_at_all_had_come() -> None:
    more = plan(CHAT, EVERYTHING, heard(prompt=None))
    assert more.restarted
    assert more.adapt(ROLE) == ROLE


def test_a_client_that_saw_token_ids_is_not_told_others() -> None:
    transcript = heard(ROLE, chat_chunk("", 1))
    with pytest.raises(CannotContinue) as refused:
        plan(CHAT, chat(), transcript, ids_shown=True)
    assert refused.value.reason == "no text yet"


def delta(**fields: Any) -> bytes:
    return (
        CHAT_HEAD
        + orjson.dumps({"index": 0, "delta": fields, "logprobs": None, "finish_reason": None, "token_ids": [5]})
        + b"]}"
    )


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (delta(reasoning="Hm"), "reasoning"),
        (delta(reasoning_content="Hm"), "reasoning"),
        (delta(content=None, tool_calls=[{"index": 0}]), "tool calls"),
        (delta(refusal="No"), "delta refusal"),
        (chat_chunk("a").replace(b',"token_ids":[]', b""), "no token ids"),
        (chat_chunk("a").replace(b'"token_ids":[]', b'"token_ids":null'), "no token ids"),
    ],
)
def test_what_the_stream_shows_to_be_in_the_way(payload: bytes, reason: str) -> None:
    for more in ((), (chat_chunk("a", 6),)):
        with pytest.raises(CannotContinue) as refused:
            plan(CHAT, chat(), heard(ROLE, payload, *more))
        assert refused.value.reason == reason


def test_a_field_in_the_way() -> None:
    with pytest.raises(CannotContinue) as refused:
        resumed(chat(seed=1, temperature=1))
    assert refused.value.reason == "seeded sampling"


def test_a_long_stream_goes_on_from_its_end() -> None:
    transcript = heard(ROLE, *(chat_chunk(f" {i}", i) for i in range(1, 3 * WINDOW)))
    more = plan(CHAT, chat(max_tokens=500), transcript)
    assert asked(more)["prompt"] == [*PROMPT, *range(1, 3 * WINDOW)]
    coarse = heard(ROLE, *(chat_chunk("é", i, i) for i in range(1, 3 * WINDOW)))
    with pytest.raises(CannotContinue) as refused:
        plan(CHAT, chat(max_tokens=500), coarse)
    assert refused.value.reason == "no clean cut"


def with_logprobs(chunk: bytes, told: dict[str, Any]) -> bytes:
    return chunk.replace(b'"logprobs":null', b'"logprobs":' + orjson.dumps(told))


def test_log_probabilities_take_the_chat_form() -> None:
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    told = {"text_offset": [0, 1], "token_logprobs": [-0.5, -2.0], "tokens": ["a", "é"], "top_logprobs": [{}, {}]}
    other = {"token": "é", "logprob": -2.0, "bytes": [195, 169], "top_logprobs": []}
    more = resumed(chat(logprobs=True), with_logprobs(chat_chunk("a", 1), {"content": [entry]}))
    assert asked(more)["logprobs"] == 0
    adapted = more.adapt(with_logprobs(text_chunk("aé", 1, 2), told))
    assert adapted == with_logprobs(chat_chunk("aé", 1, 2), {"content": [entry, other]})


def test_offsets_go_on() -> None:
    def told(offset: int, token: str) -> dict[str, Any]:
        return {"text_offset": [offset], "token_logprobs": [-1.0], "tokens": [token], "top_logprobs": [{token: -1.0}]}

    first = [with_logprobs(text_chunk("x" * 9, i), told(9 * i, "x" * 9)) for i in range(WINDOW + 9)]
    more = plan(COMPLETIONS, completion(logprobs=1, max_tokens=500), heard(*first))
    assert asked(more)["logprobs"] == 1
    adapted = more.adapt(with_logprobs(text_chunk("é", 5), told(0, "é")))
    assert adapted == with_logprobs(text_chunk("é", 5), told(9 * (WINDOW + 9), "é"))


def test_engines_that_name_tokens_by_id() -> None:
    entry = {"token": "token_id:5", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    with pytest.raises(CannotContinue) as refused:
        resumed(chat(logprobs=True), with_logprobs(chat_chunk("a", 5), {"content": [entry]}))
    assert refused.value.reason == "tokens named by id"


def test_an_engine_that_shuts_down_is_no_end() -> None:
    with pytest.raises(EngineReportedError):
        resumed().adapt(text_chunk("", end='"abort"'))
