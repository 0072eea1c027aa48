"""A stream gathered into one answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cloudach_gateway.proxy.stream.client_view import ClientView
from cloudach_gateway.proxy.stream.collect import Collector
from cloudach_gateway.proxy.stream.tally import Tally

HEAD = {"id": "x-1", "created": 7, "model": "own-name"}


def gathered(*choices: dict[str, Any], chat: bool = True, vllm: bool = True, **last: Any) -> dict[str, Any]:
    """The answer made of one event for each choice, and of a last one without choices where `last` is given."""
    collector = Collector(ClientView("alias", chat=chat), Tally(), vllm=vllm)
    for choice in choices:
        collector.feed(orjson.dumps({**HEAD, "choices": [{"index": 0, **choice}]}))
    if last:
        collector.feed(orjson.dumps({**HEAD, "choices": [], **last}))
    answer: dict[str, Any] = orjson.loads(collector.answer())
    return answer


def said(text: str, *tokens: str, **more: Any) -> dict[str, Any]:
    """A part of a completion whose text may lag behind its tokens, as vLLM tells it."""
    told = {"text_offset": [99 for _ in tokens], "token_logprobs": [-1.0 for _ in tokens], "tokens": list(tokens)}
    return {"text": text, "logprobs": told, "finish_reason": None, **more}


def test_offsets_into_the_text_are_those_of_the_tokens_however_late_the_text_came() -> None:
    choice = gathered(
        said("", "Hello"), said("Hello", ",", " wo"), said(", world", "rld", finish_reason="stop"), chat=False
    )["choices"][0]
    assert choice["text"] == "Hello, world"
    assert choice["logprobs"]["text_offset"] == [0, 5, 6, 9]
    assert choice["logprobs"]["tokens"] == ["Hello", ",", " wo", "rld"]


def test_offsets_of_other_engines_stay_as_they_are() -> None:
    choice = gathered(said("Hello", "Hello"), chat=False, vllm=False)["choices"][0]
    assert choice["logprobs"]["text_offset"] == [99]


def test_log_probabilities_outlive_a_null_at_the_end() -> None:
    parts = ({"content": [{"token": "a"}], "refusal": None}, {"content": None, "refusal": None})
    answer = gathered(*({"delta": {"content": "a"}, "logprobs": part} for part in parts), vllm=False)
    assert answer["choices"][0]["logprobs"] == {"content": [{"token": "a"}], "refusal": None}


@pytest.mark.parametrize("tokens", [None, [None], "Hello"])
def test_offsets_of_tokens_that_are_none(tokens: Any) -> None:
    choice = gathered({"text": "Hello", "logprobs": {"tokens": tokens, "text_offset": [3]}}, chat=False)["choices"][0]
    assert choice["logprobs"]["text_offset"] == [3]


def test_an_answer_of_vllm_has_its_null_fields() -> None:
    answer = gathered({"delta": {"content": "Hi"}, "finish_reason": "stop"})
    assert [name for name, value in answer.items() if value is None] == [
        *("service_tier", "system_fingerprint", "prompt_logprobs", "prompt_token_ids", "prompt_text"),
        *("kv_transfer_params", "ec_transfer_params", "metrics"),
    ]
    text = gathered({"text": "Hi", "finish_reason": "stop"}, chat=False)["choices"][0]
    assert {name for name, value in text.items() if value is None} == {
        *("logprobs", "stop_reason", "token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts")
    }


def test_an_answer_has_the_head_of_its_chunks() -> None:
    answer = gathered({"delta": {"content": "Hi"}}, system_fingerprint="vllm-1")
    head = {name: answer[name] for name in ("id", "object", "created", "model", "system_fingerprint")}
    assert head == HEAD | {"object": "chat.completion", "model": "alias", "system_fingerprint": "vllm-1"}


def test_another_engines_answer_has_none_of_them() -> None:
    answer = gathered({"delta": {"content": "Hi"}, "finish_reason": "stop"}, vllm=False)
    assert None not in answer.values()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hi", "refusal": None}


def test_an_answer_that_is_all_reasoning_has_no_content() -> None:
    """As vLLM says it; in its streams the first chunk has an empty content all the same."""
    parts = [{"delta": delta} for delta in ({"role": "assistant", "content": ""}, {"reasoning": "Hm"})]
    message = gathered(*parts)["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("Hm", None)
    message = gathered(*parts, {"delta": {"content": "Yes"}})["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("Hm", "Yes")


def test_usage_has_its_details() -> None:
    usage = {"prompt_tokens": 3, "total_tokens": 4, "completion_tokens": 1}
    details = {"prompt_tokens_details": {"cached_tokens": 2}}
    answer = gathered({"delta": {"content": "Hi"}}, usage=usage | details)
    told = {"cached_tokens": 2, "created_cache_tokens": None, "multimodal_tokens": None}
    assert answer["usage"] == usage | {"prompt_tokens_details": told, "completion_tokens_details": None}
    other = gathered({"delta": {"content": "Hi"}}, vllm=False, usage=usage | details)
    assert other["usage"] == usage | details
