"""What of a client's request the engine is asked for, and what is asked for besides so that tokens can be counted."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cloudach_gateway.api.chat import CHAT
from cloudach_gateway.api.completions import COMPLETIONS
from cloudach_gateway.catalog.served import ServedModel


def asked_of_vllm(**fields: Any) -> dict[str, Any]:
    return asked("vllm", **fields)


def asked(dialect: Any, **fields: Any) -> dict[str, Any]:
    fields = {"model": "m", **fields}
    body = orjson.dumps(fields)
    request = (CHAT if "messages" in fields else COMPLETIONS).asked(body)
    model = ServedModel("m", ("m",), ("http://engine",), "own-name", None, dialect, None, 0)
    prepared = request.to_engine(model)
    sent: dict[str, Any] = orjson.loads(prepared.body)
    assert sent["model"] == "own-name"
    assert (prepared.answers is not None) is sent.get("stream", False)
    return sent


MESSAGES = {"messages": [{"role": "user", "content": "?"}]}


def test_token_ids_and_usage() -> None:
    sent = asked_of_vllm(**MESSAGES, stream=True)
    assert (sent["return_token_ids"], sent["stream_options"]) == (True, {"include_usage": True})
    assert "return_token_ids" not in asked("openai", **MESSAGES, stream=True)


def test_where_vllm_names_no_token_ids_its_chunks_state_usage() -> None:
    counted = {"include_usage": True, "continuous_usage_stats": True}
    hidden = asked_of_vllm(**MESSAGES, stream=True, include_reasoning=False)
    assert (hidden["return_token_ids"], hidden["stream_options"]) == (True, counted)
    echoed = asked_of_vllm(prompt="x", stream=True, echo=True)
    assert ("return_token_ids" in echoed, echoed["stream_options"]) == (False, counted)


@pytest.mark.parametrize(
    ("fields", "whole"),
    [
        ({}, False),
        ({"prompt_logprobs": None}, False),
        ({"prompt_logprobs": 0}, True),
        ({"prompt_logprobs": 1}, True),
        ({"echo": False}, False),
        ({"echo": True}, True),
        ({"tools": []}, False),
        ({"prompt_embeds": ["AA=="]}, True),  # more prompts, and so more choices
        ({"kv_transfer_params": {}}, True),
    ],
)
def test_what_streams_leave_out_is_asked_for_whole(fields: dict[str, Any], whole: bool) -> None:
    kind = {"prompt": "x"} if "echo" in fields else MESSAGES
    assert asked_of_vllm(**kind, **fields).get("stream", False) is not whole
