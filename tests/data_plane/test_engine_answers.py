"""What becomes of an engine's answer that is none: a clear error, no needless attempt, and an exact bill.

The engine is a socket that says exactly what stands here.
"""

from __future__ import annotations

import email.utils
import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.data_plane.conftest import PATIENT
from tests.data_plane.streamed import Streamed
from tests.support.raw_engine import RawEngine
from tests.support.stack import Gateway, create_key, start_gateway
from tests.support.wire import INVALID, error_of, events, response, sse

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"

IN_ONE_PIECE = {"prompt_logprobs": 1}  # what the engine is asked for without a stream
REFUSAL_TEXT = "the prompt is too long by seven"


@dataclass
class Broken:
    """A gateway before an engine that says what a test has it say, in both dialects: models `vllm` and `openai`."""

    engine: RawEngine
    gateway: Gateway
    key: str

    def ask(self, *, model: str = "vllm", path: str = CHAT, **fields: Any) -> httpx.Response:
        body: dict[str, Any] = {"model": model, **fields}
        if path == CHAT:
            body.setdefault("messages", [{"role": "user", "content": "hi"}])
        else:
            body.setdefault("input" if path == EMBEDDINGS else "prompt", "hi")
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.post(self.gateway.url + path, json=body, headers=headers, timeout=30)

    def logged(self, answer: httpx.Response) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while True:
            for entry in reversed(self.gateway.requests):
                if entry["request_id"] == answer.headers["x-request-id"]:
                    return entry
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def billed(self, answer: httpx.Response) -> tuple[int, int]:
        entry = self.logged(answer)
        return entry["prompt_tokens"], entry["completion_tokens"]


@pytest.fixture(scope="module")
def running() -> Iterator[Broken]:
    with (
        RawEngine() as engine,
        start_gateway(
            {
                "models": [
                    {"id": "vllm", "upstreams": [engine.url], "max_model_len": 4096},
                    {"id": "openai", "upstreams": [engine.url], "dialect": "openai"},
                ],
                "timeouts": PATIENT,
                "failover": {"spread_s": 0.01, "budget_s": 5.0},
            }
        ) as gateway,
    ):
        yield Broken(engine, gateway, create_key(gateway))


@pytest.fixture
def broken(running: Broken) -> Iterator[Broken]:
    yield running
    assert "Traceback" not in running.gateway.output
    assert '"unhandled"' not in running.gateway.output


def chunk(text: str, *ids: int, end: str | None = None, usage: Any = None, **more: Any) -> str:
    """As vLLM writes it in chats, to who asked for token ids."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": end}
    if ids:
        choice["token_ids"] = list(ids)
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "vllm"}
    return json.dumps(head | {"choices": [choice | more]} | ({"usage": usage} if usage else {}), separators=(",", ":"))


ROLE = (
    '{"id":"c","object":"chat.completion.chunk","created":1,"model":"vllm","choices":[{"index":0,'
    '"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":[1,2,3]}'
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
USAGE_CHUNK = json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "its own",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop", "logprobs": None}
    ],
    "usage": USAGE,
}


def failed_with(answer: httpx.Response, stream: bool) -> dict[str, Any]:
    """The error, however it was told; a stream ends with it."""
    if answer.status_code != 200:
        found: dict[str, Any] = answer.json()["error"]
        return found
    assert stream, answer.text
    told = Streamed(answer.content)
    assert told.error is not None
    assert not told.done
    return told.error


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
GOOD = [ROLE, chunk("a", 7), chunk("b", 8, end="stop"), USAGE_CHUNK, "[DONE]"]


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


LATE_REFUSALS = [
    {"error": {"message": REFUSAL_TEXT, "type": "invalid_request_error", "code": "400"}},
    {"error": {"message": REFUSAL_TEXT, "type": "BadRequestError", "code": 400}},
    {"error": {"message": REFUSAL_TEXT, "type": "invalid_request_error"}},
    {"error": {"message": REFUSAL_TEXT, "status": 422}},
    {"id": "c", "error": {"code": 400, "message": REFUSAL_TEXT}},
    {"id": "c", "choices": [], "error": {"code": 400, "message": REFUSAL_TEXT}},
    {"object": "error", "message": REFUSAL_TEXT, "type": "BadRequestError", "param": None, "code": 400},
    {"error": REFUSAL_TEXT, "code": 400},
    {"detail": REFUSAL_TEXT, "status_code": 400},
]


@pytest.mark.parametrize("asked", [{"stream": True}, {}, IN_ONE_PIECE])
@pytest.mark.parametrize("refusal", LATE_REFUSALS, ids=range(len(LATE_REFUSALS)))
def test_a_refusal_behind_a_200(broken: Broken, refusal: dict[str, Any], asked: dict[str, Any]) -> None:
    """As the first event of a stream, after one that has no choice, or whole."""
    said = json.dumps(refusal)
    if asked is IN_ONE_PIECE:
        forms = [response(said)]
    else:
        forms = [events(said, "[DONE]"), events(USAGE_CHUNK, said), response(sse(said), kind="text/event-stream")]
        forms.append(response(said))
    for form in forms:
        broken.engine.says(form)
        answer = broken.ask(**asked)
        assert error_of(answer, 400, INVALID, None) == REFUSAL_TEXT
        assert len(broken.engine.requests) == 1
        assert broken.billed(answer) == (0, 0)


def test_a_context_that_is_too_long_has_its_code(broken: Broken) -> None:
    said = "This model's maximum context length is 8 tokens."
    for form in ({"error": {"message": said, "code": "400"}}, {"error": said, "code": 400}):
        broken.engine.says(events(json.dumps(form)))
        assert error_of(broken.ask(stream=True), 400, INVALID, "context_length_exceeded") == said


WORDS = [
    (json.dumps({"error": REFUSAL_TEXT}), "application/json"),
    (json.dumps({"error": {"message": REFUSAL_TEXT}}), "application/json"),
    (json.dumps({"error": {"detail": REFUSAL_TEXT}}), "application/json"),
    (json.dumps({"message": REFUSAL_TEXT}), "application/json"),
    (json.dumps({"object": "error", "message": REFUSAL_TEXT, "code": 400}), "application/json"),
    (json.dumps({"detail": REFUSAL_TEXT}), "application/json"),
    (json.dumps({"detail": [{"loc": ["body", "x"], "msg": REFUSAL_TEXT, "type": "t"}]}), "application/json"),
    (json.dumps(REFUSAL_TEXT), "application/json"),
    (REFUSAL_TEXT, "text/plain; charset=utf-8"),
    (REFUSAL_TEXT + "\n", None),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(("said", "kind"), WORDS, ids=range(len(WORDS)))
def test_the_engines_own_words_for_a_refusal(
    broken: Broken, said: str, kind: str | None, status: int, stream: bool
) -> None:
    broken.engine.says(response(said, status=status, kind=kind))
    for path in (CHAT, COMPLETIONS):
        assert error_of(broken.ask(path=path, stream=stream), 400, INVALID, None) == REFUSAL_TEXT
    assert error_of(broken.ask(path=EMBEDDINGS), 400, INVALID, None) == REFUSAL_TEXT


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("<html><h1>400 Bad request</h1></html>", "text/html"),
        ("<html><h1>400 Bad request</h1></html>", "text/plain"),
        ("", "text/plain"),
        ("[]", "application/json"),
        ('{"error":{"message":7}}', "application/json"),
        (b"\xff\xfe", "text/plain"),
    ],
)
def test_a_refusal_without_words(broken: Broken, said: str | bytes, kind: str) -> None:
    broken.engine.says(response(said, status=400, kind=kind))
    assert error_of(broken.ask(), 400, INVALID, None) == "The model's engine refused the request."


def test_the_words_of_a_refusal_have_a_bound(broken: Broken) -> None:
    broken.engine.says(response(json.dumps({"error": "x" * 1_000_000}), status=400))
    said = error_of(broken.ask(), 400, INVALID, None)
    assert said.startswith("xxx")
    assert len(said) <= 10_000


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


def waits(headers: dict[str, str], status: int = 503) -> bytes:
    return response("busy", status=status, kind="text/plain", headers=headers)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "17"}, 17, 17),
        ({"Retry-After": "0"}, 2, 2),
        ({}, 2, 2),
        ({"retry-after": "soon"}, 2, 2),
        ({"retry-after": "-5"}, 2, 2),
        ({"retry-after": "9" * 400}, 3600, 3600),
        ({"retry-after-ms": "7500"}, 8, 8),
        ({"retry-after": email.utils.formatdate(time.time() + 600, usegmt=True)}, 400, 600),
        ({"retry-after": email.utils.formatdate(time.time() - 600, usegmt=True)}, 2, 2),
    ],
)
def test_an_engine_is_left_alone_for_as_long_as_it_says(
    broken: Broken, headers: dict[str, str], least: int, most: int, stream: bool, status: int
) -> None:
    broken.engine.says(waits(headers, status))
    answer = broken.ask(stream=stream)
    error_of(answer, 503, "server_error", "server_is_overloaded")
    assert least <= int(answer.headers["retry-after"]) <= most
    assert int(answer.headers["retry-after-ms"]) <= most * 1000


SECRET = "confidential"


def test_a_word_in_a_refusal_does_not_make_an_engine_dead(broken: Broken) -> None:
    """The engine quotes what it refuses, and another request runs beside it."""
    said = {"error": {"message": "min_tokens: EngineCore is not a number", "type": "BadRequestError", "code": 400}}
    for form in (response(json.dumps(said), status=400), events(json.dumps(said)), response(json.dumps(said))):
        broken.engine.says(form)
        answer = broken.ask(stream=True)
        error_of(answer, 400, INVALID, None)
        assert len(broken.engine.requests) == 1, "another engine would have been asked"


@pytest.mark.parametrize(
    "form",
    [
        response(
            json.dumps({"error": {"message": f"{SECRET} and more", "type": SECRET + " x", "code": 500}}), status=500
        ),
        response(f"Traceback: {SECRET}", status=500, kind="text/plain"),
        response(f"busy with {SECRET}", status=503, kind="text/plain"),
        response(f"<p>{SECRET}", kind="text/html"),
        response(SECRET, kind=SECRET + " " + SECRET),
        events(json.dumps({"error": {"message": SECRET, "code": 500}})),
        events(ROLE, chunk("a", 7), json.dumps({"error": {"message": SECRET, "code": 500}})),
        events(ROLE, chunk("a", 7), json.dumps({"error": SECRET})),
        events(ROLE, chunk("a", 7), SECRET),
        events(ROLE, chunk("a", 7), json.dumps({"choices": [{"index": SECRET}]})),
        b"HTTP/1.1 200 " + SECRET.encode() + b"\r\nx: y\r\nbroken " + SECRET.encode() + b"\r\n\r\n",
        SECRET.encode() + b"\r\n\r\n",
    ],
)
def test_the_engines_words_stay_out_of_the_log(broken: Broken, form: bytes) -> None:
    for stream in (True, False):
        broken.engine.says(form)
        answer = broken.ask(stream=stream, n=2)
        assert broken.logged(answer)["cause"]
    assert SECRET not in broken.gateway.output


def stating(form: str, **usage: Any) -> bytes:
    """A good answer of two tokens to a prompt of three, and what the engine says that these were."""
    stated = USAGE | usage
    if form == "whole":
        return response(json.dumps(WHOLE | {"usage": stated}))
    if form == "on each chunk":
        return events(ROLE, chunk("a", 7, usage=stated), chunk("b", 8, end="stop", usage=stated), "[DONE]")
    last = json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": stated})
    return events(ROLE, chunk("a", 7), chunk("b", 8, end="stop"), last, "[DONE]")


@pytest.mark.parametrize("form", ["at the end", "on each chunk", "whole"])
@pytest.mark.parametrize("model", ["vllm", "openai"])
@pytest.mark.parametrize("stated", [2**63, 2**64 - 1, 2**64, 289_971, 10**30, 51])
def test_usage_is_believed_up_to_what_was_asked(broken: Broken, stated: int, model: str, form: str) -> None:
    """For the answer that is `max_tokens`, for the prompt a text's bytes and a template."""
    broken.engine.says(stating(form, completion_tokens=stated, prompt_tokens=stated, total_tokens=stated))
    more: dict[str, Any] = IN_ONE_PIECE if form == "whole" else {"stream": True}
    answer = broken.ask(model=model, max_tokens=50, **more)
    assert answer.status_code == 200
    prompt, completion = broken.billed(answer)
    assert completion <= 50
    assert prompt <= 4096 if model == "vllm" else prompt <= 20_000
    usage = answer.json()["usage"] if form == "whole" else Streamed(answer.content).usage
    if usage is not None:
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, completion)
        assert usage["total_tokens"] == prompt + completion
    if stated != 51:
        assert f'"request_id":"{answer.headers["x-request-id"]}"' in "".join(
            line for line in broken.gateway.output.splitlines() if "is not believed" in line
        )


@pytest.mark.parametrize("stated", [0, 1, -5, "2", 2.0, True, None, [], {}])
def test_usage_is_believed_down_to_what_was_seen(broken: Broken, stated: Any) -> None:
    """Token ids were told of the prompt and of the answer."""
    broken.engine.says(stating("at the end", completion_tokens=stated, prompt_tokens=stated))
    answer = broken.ask(stream=True, max_tokens=50)
    assert Streamed(answer.content).done
    assert broken.billed(answer) == (3, 2)


def test_no_more_of_a_prompt_was_cached_than_it_has(broken: Broken) -> None:
    broken.engine.says(stating("at the end", prompt_tokens_details={"cached_tokens": 2**63}))
    answer = broken.ask(stream=True)
    assert broken.logged(answer)["cached_tokens"] == 3
    told = [chunk["usage"] for chunk in Streamed(answer.content).chunks if chunk.get("usage")]
    assert told[-1]["prompt_tokens_details"]["cached_tokens"] == 3


def test_what_a_right_engine_states_is_believed(broken: Broken) -> None:
    broken.engine.says(stating("whole", completion_tokens=50, prompt_tokens=4000, total_tokens=4050))
    answer = broken.ask(max_tokens=50, **IN_ONE_PIECE)
    assert broken.billed(answer) == (4000, 50)
    line = [line for line in broken.gateway.output.splitlines() if answer.headers["x-request-id"] in line]
    assert not any("is not believed" in entry for entry in line)
