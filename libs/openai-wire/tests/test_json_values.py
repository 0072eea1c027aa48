"""What is counted without reading a document is what reading it finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_wire.json_values import values_in

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text(',:{}[]"\\\n'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.text('":\\'), inner),
)


def expected(document: Any) -> int:
    """Arrays and objects, names, and all values but the first of each."""
    if isinstance(document, dict):
        return 1 + max(0, len(document) - 1) + len(document) + sum(map(expected, document.values()))
    if isinstance(document, list):
        return 1 + max(0, len(document) - 1) + sum(map(expected, document))
    return 0


@given(document=DOCUMENTS, ascii=st.booleans())
def test_a_count_is_exact(document: Any, ascii: bool) -> None:
    text = json.dumps(document, ensure_ascii=ascii).encode()
    exact = expected(document)
    assert values_in(text, most=exact) == exact
    if exact:
        assert values_in(text, most=exact - 1) > exact - 1


@pytest.mark.parametrize("body", [b"", b'"', b'\\\\\\"', b'{"a', b"[" * 1000])
def test_what_is_no_json_is_counted_too(body: bytes) -> None:
    assert values_in(body, most=10_000) >= 0
