"""The guide's curl command: what comes over the wire, byte for byte."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.guide_examples import Example
from tests.support.stack import Gateway, Simulator

from .programs import Arrivals, run
from .stacks import HEARTBEAT_S, RATE, Stack, write

PROMPT = "Count from 1 to 5 slowly."
KEEP_ALIVE = b": keep-alive\n\n"


def _curl(example: Example, stack: Stack, folder: Path, **env: str) -> tuple[str, Arrivals]:
    """The response's head and body. curl is told by its own configuration file to write the head apart."""
    write(folder, ".curlrc", 'silent\ndump-header = "head.txt"\n')
    script = write(folder, "stream.sh", example.code)
    done = run(["bash", "-eu", script], env=stack.env(CURL_HOME=str(folder), **env), cwd=folder, patience_s=300)
    assert done.status == 0, done.errors
    return (folder / "head.txt").read_bytes().decode(), done.output


def _events(body: bytes) -> list[bytes]:
    """The payloads of the data events, [DONE] among them; everything else but heart-beats is an error."""
    assert b"\r" not in body
    assert body.endswith(b"\n\n")
    payloads = []
    for frame in body[:-2].split(b"\n\n"):
        if frame + b"\n\n" == KEEP_ALIVE:
            continue
        assert frame.startswith(b"data: "), frame
        assert b"\n" not in frame, frame
        payloads.append(frame.removeprefix(b"data: "))
    return payloads


def _fits(shown: Any, real: Any) -> bool:
    """Whether everything that the guide shows is there, in the same shape."""
    if isinstance(shown, dict):
        return isinstance(real, dict) and all(name in real and _fits(shown[name], real[name]) for name in shown)
    if isinstance(shown, list):
        return isinstance(real, list) and len(shown) == len(real) and all(map(_fits, shown, real))
    return type(shown) is type(real)


@pytest.mark.parametrize("source", ["guide", "seed"])
def test_the_bytes_are_the_contracts(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path, source: str) -> None:
    examples: dict[str, Example] = request.getfixturevalue(source)
    answer = stack.answer(PROMPT)
    head, body = _curl(examples["stream.sh"], stack, tmp_path)

    assert head.startswith("HTTP/1.1 200 OK\r\n")
    headers = dict(re.findall(r"(?m)^([^:\r]+): ([^\r]*)", head.lower()))
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-request-id"]
    assert "content-encoding" not in headers
    assert "content-length" not in headers

    *payloads, done = _events(body.data)
    assert done == b"[DONE]"
    chunks = [json.loads(payload) for payload in payloads]
    first, *running, last = chunks
    # Compact JSON in UTF-8, nothing escaped that need not be.
    assert payloads == [json.dumps(c, separators=(",", ":"), ensure_ascii=False).encode() for c in chunks]
    for chunk in chunks:
        assert chunk["id"] == first["id"]
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["created"] == first["created"]
        assert chunk["model"] == stack.model
        assert [choice["index"] for choice in chunk["choices"]] == [0]
        assert "token_ids" not in chunk["choices"][0]
        assert "prompt_token_ids" not in chunk
    assert first["id"].startswith("chatcmpl-")
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    for chunk in (first, *running):
        assert "usage" not in chunk
        assert chunk["choices"][0]["finish_reason"] is None
    assert last["choices"][0]["finish_reason"] in ("stop", "length")
    usage = last["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text
    if answer is not None:
        assert text == answer.text
        assert last["choices"][0]["finish_reason"] == answer.finish_reason
        assert usage["prompt_tokens"] == answer.prompt_tokens
        assert usage["completion_tokens"] == answer.completion_tokens
    if answer is not None and stack.own is not None and source == "guide":
        body.assert_one_by_one(answer.completion_tokens, RATE)


def test_takes_the_model_from_the_environment(
    stack: Stack, own: tuple[Simulator, Gateway], guide: dict[str, Example], tmp_path: Path
) -> None:
    _, body = _curl(guide["stream.sh"], stack, tmp_path, CLOUDACH_MODEL="sim")
    assert {json.loads(payload)["model"] for payload in _events(body.data)[:-1]} == {"sim"}


def test_two_answers_differ_in_nothing_but_id_and_time(
    stack: Stack, own: tuple[Simulator, Gateway], guide: dict[str, Example], tmp_path: Path
) -> None:
    bodies = [_curl(guide["stream.sh"], stack, tmp_path)[1].data for _ in range(2)]
    ids = [re.search(rb'"id":"([^"]+)"', body) for body in bodies]
    assert ids[0] is not None
    assert ids[1] is not None
    assert ids[0][1] != ids[1][1]
    varying = re.compile(rb'"id":"[^"]+"|"created":\d+')
    assert varying.sub(b"", bodies[0]) == varying.sub(b"", bodies[1])


def test_silence_is_filled_with_comments(
    stack: Stack, own: tuple[Simulator, Gateway], guide: dict[str, Example], tmp_path: Path
) -> None:
    sim, _ = own
    sim.arm(f"prefill:{int(4.5 * HEARTBEAT_S * 1000)}")
    began = time.monotonic()
    _, body = _curl(guide["stream.sh"], stack, tmp_path)
    comments = body.data[: body.data.index(b"data: ")]
    assert comments == KEEP_ALIVE * (len(comments) // len(KEEP_ALIVE))
    assert 2 <= len(comments) // len(KEEP_ALIVE) <= (time.monotonic() - began) / HEARTBEAT_S
    assert _events(body.data)[-1] == b"[DONE]"


@pytest.mark.parametrize("name", ["wire-format.txt", "curl-output.txt"])
def test_the_chunks_that_the_guide_shows_are_like_the_real_ones(
    stack: Stack, guide: dict[str, Example], tmp_path: Path, name: str
) -> None:
    _, body = _curl(guide["stream.sh"], stack, tmp_path)
    real = [json.loads(payload) for payload in _events(body.data)[:-1]]
    shown = guide[name].code[guide[name].code.index("data: ") :].encode()
    *payloads, done = _events(shown)
    assert done == b"[DONE]"
    first, *running, last = [json.loads(payload) for payload in payloads]
    assert _fits(first, real[0])
    assert all(_fits(chunk, real[1]) for chunk in running)
    del last["choices"][0]["delta"]["content"]  # may stand in a chunk before the last
    assert _fits(last, real[-1])
