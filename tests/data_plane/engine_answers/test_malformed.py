"""Answers of an engine that are malformed, empty, or no stream: each is an error, and the bill is exact."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.data_plane.engine_answers.broken import (
    CHAT,
    EMBEDDINGS,
    GOOD,
    IN_ONE_PIECE,
    ROLE,
    USAGE,
    USAGE_CHUNK,
    WHOLE,
    Broken,
    chunk,
    failed_with,
)
from tests.data_plane.streamed import Streamed
from tests.support.wire import error_of, events, response, sse

MALFORMED = [
    '{"choices":[5]}',
    '{"choices":5}',
    '{"choices":{"index":0}}',
    '{"choices":[null]}',
    '{"choices":[{"index":[0],"delta":{"content":"x"}}]}',
    '{"choices":[{"index":"0","delta":{"content":"x"}}]}',
    '{"choices":[{"index":-1,"delta":{"content":"x"}}]}',
    '{"choices":[{"index":0,"delta":5}]}',
    '{"choices":[{"index":0,"delta":{"content":"x"},"token_ids":["1,2"]}]}',
    '{"choices":[{"index":0,"delta":{"content":"x"},"token_ids":[1.5]}]}',
    '{"choices":[{"index":0,"delta":{"content":"x"},"token_ids":7}]}',
    '{"choices":[{"index":0,"delta":{"content":"x"},"x":%s}]}' % ("[" * 400 + "]" * 400),
    "5",
    "[]",
    "null",
    "{",
    "\x00",
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["vllm", "openai"])
@pytest.mark.parametrize("malformed", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_chunk_is_an_error_and_what_came_before_is_billed(
    broken: Broken, malformed: str, model: str, stream: bool
) -> None:
    ids = (7, 8) if model == "vllm" else ()
    before = [ROLE, chunk("a", *ids[:1]), chunk("b", *ids[1:])]
    broken.engine.says(events(*before, malformed, "[DONE]"))
    answer = broken.ask(model=model, stream=stream, n=2)  # several choices cannot be continued elsewhere
    assert answer.status_code == (200 if stream else 502)
    error = failed_with(answer, stream)
    assert (error["type"], error["code"]) == ("server_error", "upstream_error")
    if stream:
        assert Streamed(answer.content).text == "ab"
        assert broken.billed(answer) == (3, 2)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("malformed", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_chunk_at_the_very_beginning(broken: Broken, malformed: str, stream: bool) -> None:
    broken.engine.says(events(malformed, "[DONE]"))
    answer = broken.ask(stream=stream)
    assert failed_with(answer, stream)["code"] == "upstream_error"
    assert broken.billed(answer) == (0, 0)


NOTHING = {
    "usage alone": [USAGE_CHUNK, "[DONE]"],
    "an empty chunk": ['{"id":"c","object":"chat.completion.chunk","choices":[]}', "[DONE]"],
    "no choices at all": ['{"id":"c","object":"chat.completion.chunk"}', "[DONE]"],
    "a ping": ['{"type":"ping"}', '{"type":"ping"}', USAGE_CHUNK, "[DONE]"],
    "an error that says nothing": ['{"object":"error"}', "[DONE]"],
    "an error by a number": ['{"error":5}', "[DONE]"],
    "an error by its text": ['{"error":"it broke"}', "[DONE]"],
    "FastAPI's": ['{"detail":"Internal Server Error"}', "[DONE]"],
    "after what has no choice": [USAGE_CHUNK, '{"object":"error","message":"oh"}', "[DONE]"],
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["vllm", "openai"])
@pytest.mark.parametrize("nothing", NOTHING)
def test_a_stream_without_any_choice_is_no_success(broken: Broken, nothing: str, model: str, stream: bool) -> None:
    broken.engine.says(events(*NOTHING[nothing]))
    answer = broken.ask(model=model, stream=stream)
    error_of(answer, 502, "server_error", "upstream_error")
    assert broken.logged(answer)["outcome"] == "failed"
    assert broken.billed(answer) == (0, 0)
    assert len(broken.engine.requests) <= 2


def test_a_choice_that_nobody_asked_for_ends_no_answer(broken: Broken) -> None:
    """It had finished, so that nothing seemed to be left to generate when the next chunk was malformed."""
    broken.engine.says(events(chunk("a", 7, end="stop", index=7), "{", "[DONE]"))
    answer = broken.ask()
    error_of(answer, 502, "server_error", "upstream_error")
    assert broken.billed(answer) == (0, 0)


@pytest.mark.parametrize("stream", [True, False])
def test_after_a_stream_without_any_choice_another_attempt_is_made(broken: Broken, stream: bool) -> None:
    broken.engine.says(events(USAGE_CHUNK, "[DONE]"), events(*GOOD))
    answer = broken.ask(stream=stream)
    assert answer.status_code == 200, answer.text
    assert "ab" in answer.text or Streamed(answer.content).text == "ab"
    assert broken.billed(answer) == (3, 2)


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        (CHAT, {**WHOLE, "choices": []}),
        (CHAT, {"id": "c", "usage": USAGE}),
        (CHAT, {**WHOLE, "choices": [5]}),
        (CHAT, {**WHOLE, "choices": 5}),
        (CHAT, {"error": "it broke"}),
        (CHAT, {"object": "error", "message": "it broke"}),
        (CHAT, {"detail": "it broke"}),
        (CHAT, 5),
        (EMBEDDINGS, {"object": "list", "data": []}),
        (EMBEDDINGS, {"object": "list", "usage": USAGE}),
        (EMBEDDINGS, {"error": {"message": "it broke", "code": 500}}),
    ],
)
def test_a_whole_answer_without_any_is_no_success(broken: Broken, path: str, whole: Any) -> None:
    more = IN_ONE_PIECE if path == CHAT else {}
    broken.engine.says(response(json.dumps(whole)))
    answer = broken.ask(path=path, **more)
    error_of(answer, 502, "server_error", "upstream_error")
    assert broken.billed(answer) == (0, 0)


def test_a_whole_answer_too_deep_to_be_written_again(broken: Broken) -> None:
    deep = json.dumps({**WHOLE, "x": 0}).replace('"x": 0', '"x":' + "[" * 300 + "]" * 300)
    broken.engine.says(response(deep))
    error_of(broken.ask(**IN_ONE_PIECE), 502, "server_error", "upstream_error")


NO_STREAM = [
    (response("<html>Welcome</html>", kind="text/html; charset=utf-8"), "text/html"),
    (response(json.dumps({"hello": "world"})), "application/json"),
    (response("[1]"), "application/json"),
    (response("", kind="text/html"), "text/html"),
    (response(gzip.compress(sse(*GOOD)), kind="text/event-stream", headers={"content-encoding": "gzip"}), "gzip"),
    (response(gzip.compress(json.dumps(WHOLE).encode()), headers={"Content-Encoding": "GZIP"}), "gzip"),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("form", "named"), NO_STREAM, ids=range(len(NO_STREAM)))
def test_what_is_no_stream_is_named_and_not_asked_again(broken: Broken, form: bytes, named: str, stream: bool) -> None:
    broken.engine.says(form)
    answer = broken.ask(stream=stream)
    message = error_of(answer, 502, "server_error", "upstream_error")
    if stream or named != "application/json":
        assert named in message, message
    assert "could not be reached" not in message
    assert len(broken.engine.requests) == 1
    assert broken.billed(answer) == (0, 0)


def test_a_whole_completion_is_no_stream(broken: Broken) -> None:
    broken.engine.says(response(json.dumps(WHOLE)))
    answer = broken.ask(stream=True)
    assert "application/json" in error_of(answer, 502, "server_error", "upstream_error")
    assert len(broken.engine.requests) == 1


@pytest.mark.parametrize("model", ["vllm", "openai"])
def test_a_whole_completion_is_the_answer_for_who_wants_it_whole(broken: Broken, model: str) -> None:
    whole = json.loads(json.dumps(WHOLE))
    whole["choices"][0]["token_ids"] = [7, 8]
    broken.engine.says(response(json.dumps(whole | {"prompt_token_ids": [1, 2, 3]})))
    answer = broken.ask(model=model)
    assert answer.json() == WHOLE | {"model": model}
    assert broken.billed(answer) == (3, 2)
    assert broken.logged(answer)["outcome"] == "finished"
    assert len(broken.engine.requests) == 1


@pytest.mark.parametrize("asked", [{}, IN_ONE_PIECE])
def test_what_is_no_json(broken: Broken, asked: dict[str, Any]) -> None:
    broken.engine.says(response("<html>Welcome</html>", kind="text/html"))
    message = error_of(broken.ask(**asked), 502, "server_error", "upstream_error")
    assert "text/html" in message
    assert len(broken.engine.requests) == 1
