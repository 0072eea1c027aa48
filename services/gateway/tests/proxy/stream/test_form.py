"""The forms in which vLLM writes its chunks are recognised, and nothing else is taken for one of them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import cloudach_gateway.proxy
import orjson
import pytest
from cloudach_gateway.proxy.stream import form
from cloudach_gateway.proxy.stream.form import DATA, CompletionEdit, RunningForm, begins_answer, head_bytes, head_in
from hypothesis import given
from hypothesis import strategies as st

HEAD = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795403619,"model":"m","choices":[{"index":0,'
CHAT = HEAD + b'"delta":{"content":"%b"},"logprobs":null,"finish_reason":null,"token_ids":[%b]}]}'
SILENT = HEAD + b'"delta":{},"logprobs":null,"finish_reason":null,"token_ids":[%b]}]}'
COMPLETION = (
    HEAD
    + b'"text":"%b","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":[%b]}]}'
)
# Chunks as vLLM has written them since the version that the name tells; a new version with another form goes here.
FORMS = {
    "chat": CHAT,
    "completion": COMPLETION,
    "completion without prompt ids": COMPLETION.replace(b',"prompt_token_ids":null', b""),
}


@pytest.mark.parametrize("chunk", FORMS.values(), ids=FORMS.keys())
@given(text=st.text(max_size=20), ids=st.lists(st.integers(0, 200_000), max_size=3))
def test_running_chunks_are_read_as_a_parser_reads_them(chunk: bytes, text: str, ids: list[int]) -> None:
    known = RunningForm.of(chunk % (b"It", b"1"))
    assert known is not None
    payload = chunk % (orjson.dumps(text)[1:-1], ",".join(map(str, ids)).encode())
    read = orjson.loads(payload)["choices"][0]
    found = known.one(payload)
    assert found is not None
    assert orjson.loads(b'"%b"' % found[0]) == (read["text"] if "text" in read else read["delta"]["content"]) == text
    assert orjson.loads(b"[%b]" % found[1]) == read["token_ids"] == ids
    assert known.payload(*found) == payload
    two = DATA + payload + b"\n\n"
    assert known.split(two * 2) == ([found[0]] * 2, b",".join(filter(None, [found[1]] * 2)))


def test_a_chat_chunk_without_text_is_known_by_its_ids_alone() -> None:
    known = RunningForm.of(CHAT % (b"It", b"1"))
    assert known is not None
    assert known.one(SILENT % b"7,8") == (b"", b"7,8")


@pytest.mark.parametrize(
    "other",
    [
        CHAT.replace(b'"logprobs":null,"finish_reason":null', b'"finish_reason":null,"logprobs":null') % (b"It", b"1"),
        CHAT.replace(b'"finish_reason":null', b'"finish_reason":"stop"') % (b"It", b"1"),
        CHAT.replace(b'"logprobs":null', b'"logprobs":{"content":[]}') % (b"It", b"1"),
        CHAT.replace(b'"content"', b'"reasoning"') % (b"It", b"1"),
        CHAT.replace(b'"index":0', b'"index":1') % (b"It", b"1"),
        CHAT.replace(b':[{', b': [{') % (b"It", b"1"),
        (CHAT % (b"It", b"1")).replace(b"]}]}", b']},{"index":1,"delta":{"content":"x"},"token_ids":[2]}]}'),
        (CHAT % (b"It", b"1")).replace(b"]}]}", b']}],"usage":null}'),
        CHAT % (b'It","role":"tool', b"1"),
    ],
)  # fmt: skip
def test_any_other_chunk_has_no_form_and_is_not_read_by_one(other: bytes) -> None:
    known = RunningForm.of(CHAT % (b"It", b"1"))
    assert known is not None
    assert orjson.loads(other)["choices"]  # it is a chunk, and only its form is another
    assert RunningForm.of(other) is None
    assert known.one(other) is None
    assert known.split(DATA + other + b"\n\n") is None


def test_an_answer_begins_with_its_first_choice() -> None:
    assert begins_answer(CHAT % (b"", b""))
    assert begins_answer(b'{"choices": [ {"index": 0, "delta": {}} ]}')
    assert not begins_answer(b'{"choices":[],"usage":{"total_tokens":1}}')


@pytest.mark.parametrize("chat", [True, False])
@given(text=st.text(max_size=20), ids=st.lists(st.integers(0, 200_000), max_size=3))
def test_a_continuations_chunk_is_edited_as_it_would_be_parsed(chat: bool, text: str, ids: list[int]) -> None:
    head: dict[str, Any] = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1, "model": "alias"}
    payload = COMPLETION % (orjson.dumps(text)[1:-1], ",".join(map(str, ids)).encode())
    edited = CompletionEdit(head_in(payload), head_bytes(head), chat=chat).apply(payload)
    if not text and not ids:
        assert edited == b""
        return
    assert edited == orjson.dumps({**head, "choices": [form.choice_of(text, ids, chat=chat)]})
    if text:
        assert RunningForm.of(edited) is not None  # so that it goes on to the client as bytes too


def test_no_other_module_of_the_gateway_knows_the_bytes_of_a_chunk() -> None:
    names = (b"choices", b"delta", b"token_ids", b"finish_reason", b"logprobs", b'"content"', b'"text"', b'"model"')
    root = Path(cloudach_gateway.proxy.__file__).parents[1]
    knowing = {
        str(module.relative_to(root))
        for module in root.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, bytes)
        and any(name in node.value for name in names)
    }
    assert knowing == {"proxy/stream/form.py"}
