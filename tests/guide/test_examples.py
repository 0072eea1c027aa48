"""The extractor, and what the guide must hold."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.guide_examples import GUIDE, BadMarkdown, Example, parse, unmarked_blocks

TRIED = {
    "basic.py": "test_python.py",
    "collect.py": "test_python.py",
    "usage.py": "test_python.py",
    "retry.py": "test_retry.py",
    "mid_stream.py": "test_errors.py",
    "cancel.py": "test_python.py",
    "async_stream.py": "test_python.py",
    "chat.py": "test_fastapi.py",
    "route.ts": "test_next.py",
    "useCloudachStream.js": "test_react.py",
    "page.jsx": "test_react.py",
    "stream.sh": "test_curl.py",
    "wire-format.txt": "test_curl.py",
    "curl-output.txt": "test_curl.py",
}
"""Every example of the guide, and the module that runs it."""

# What the guide says otherwise than the one it replaces, and why.
CHANGED = {
    'model="llama3-8b",': 'model=os.environ.get("CLOUDACH_MODEL", "llama3-8b"),',
    'model: "llama3-8b",': 'model: process.env.CLOUDACH_MODEL ?? "llama3-8b",',
    '"model": "llama3-8b",': '"model": "\'"${CLOUDACH_MODEL:-llama3-8b}"\'",',
    'def stream_with_retry(messages, model="llama3-8b", max_retries=3):': (
        'def stream_with_retry(messages, model=os.environ.get("CLOUDACH_MODEL", "llama3-8b"), max_retries=3):'
    ),
    "curl $CLOUDACH_BASE_URL/chat/completions \\": 'curl -N "$CLOUDACH_BASE_URL/chat/completions" \\',
    # 504 is one of the contract's errors, and worth another try.
    "RETRYABLE = {429, 500, 502, 503}": "RETRYABLE = {429, 500, 502, 503, 504}",
    # Otherwise a character whose bytes come in two pieces is broken.
    "setResponse((prev) => prev + decoder.decode(value));": "setResponse((prev) => prev + text);",
    'print(f"\\nConnection error, retrying...")': 'print("\\nConnection error, retrying...")',
    # Formatting.
    "wait = float(retry_after) if retry_after else 2 ** attempt": (
        "wait = float(retry_after) if retry_after else 2**attempt"
    ),
    "print() # newline after stream ends": "print()  # newline after stream ends",
}


def _statements(example: Example) -> Iterator[str]:
    for line in example.code.splitlines():
        text = line.strip()
        if text and not text.startswith(("#", "//")):
            yield CHANGED.get(text, text)


def test_finds_each_example_by_its_name() -> None:
    text = "a\n<!-- example: one.py -->\n\n```python\nx = 1\n\n```\n<!-- example: two -->\n````text\n```\n````\n"
    assert parse(text) == {
        "one.py": Example("one.py", "python", "x = 1\n\n"),
        "two": Example("two", "text", "```\n"),
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- example: a -->\n", "missing"),
        ("<!-- example: a -->\nwords\n```\n```\n", "must follow"),
        ("<!-- example: a -->\n```\nnever closed\n", "not closed"),
        ("<!-- example: a -->\n```\n```\n<!-- example: a -->\n```\n```\n", "twice"),
    ],
)
def test_refuses_a_marker_without_its_block(text: str, complaint: str) -> None:
    with pytest.raises(BadMarkdown, match=complaint):
        parse(text)


def test_every_block_of_the_guide_is_an_example_and_every_example_is_tried(guide: dict[str, Example]) -> None:
    assert unmarked_blocks(GUIDE.read_text()) == 0
    assert set(guide) == set(TRIED)
    for name, module in TRIED.items():
        assert f'"{name}"' in (GUIDE.parents[2] / "tests" / "guide" / module).read_text(), f"{module} misses {name}"


@pytest.mark.parametrize(
    "name", ["basic.py", "collect.py", "retry.py", "route.ts", "stream.sh", "useCloudachStream.js"]
)
def test_the_guide_keeps_what_the_first_one_promised(
    guide: dict[str, Example], seed: dict[str, Example], name: str
) -> None:
    """Every statement of the old example stands in the new one, in the same order."""
    now = iter([line.strip() for line in guide[name].code.splitlines()])
    for statement in _statements(seed[name]):
        assert statement in now, f"{name} no longer says, at that place: {statement}"


def test_the_guide_keeps_the_async_example_in_two_programs(guide: dict[str, Example], seed: dict[str, Example]) -> None:
    now = {line.strip() for name in ("async_stream.py", "chat.py") for line in guide[name].code.splitlines()}
    assert [statement for statement in _statements(seed["chat.py"]) if statement not in now] == []


def test_the_first_guides_model_name_is_the_default(guide: dict[str, Example]) -> None:
    for name, example in guide.items():
        if "CLOUDACH_MODEL" in example.code:
            assert "llama3-8b" in example.code, name


def test_the_wire_format_shown_is_well_formed(guide: dict[str, Example]) -> None:
    for name in ("wire-format.txt", "curl-output.txt"):
        events = [event for event in guide[name].code.split("\n\n") if event.startswith("data: ")]
        assert events[-1] == "data: [DONE]"
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        usage = chunks[-1]["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
