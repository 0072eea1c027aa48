"""An engine refuses a request: whose words the client hears, and what the log keeps to itself."""

from __future__ import annotations

import email.utils
import json
import time
from typing import Any

import pytest

from tests.data_plane.engine_answers.broken import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    IN_ONE_PIECE,
    REFUSAL_TEXT,
    ROLE,
    USAGE_CHUNK,
    Broken,
    chunk,
)
from tests.support.wire import INVALID, error_of, events, response, sse

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
