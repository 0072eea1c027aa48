from __future__ import annotations

import pytest
from cloudach_service.settings import MediaDomain, base_url, header_text
from pydantic import TypeAdapter, ValidationError


@pytest.mark.parametrize("text", ["key", "key\n", "\r\n key \t\n"])
def test_white_space_at_the_ends_goes(text: str) -> None:
    assert header_text(text) == "key"


def test_latin_1_and_spaces_within_stay() -> None:
    assert header_text("a schlüssel") == "a schlüssel"
    assert header_text("") == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key\r\nx-admin: yes", r"character 4 is the control character U\+000D"),
        ("ke\x00y", "U\\+0000"),
        ("ke\x7fy", "U\\+007F"),
        ("ke\x85y", "U\\+0085"),
        ("kеy", r"character 2 is U\+0435"),  # a Cyrillic letter
        (" \n", "it is empty"),
    ],
)
def test_what_no_header_may_hold_is_refused_without_telling_the_secret(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        header_text(text)
    assert "admin" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://engine:8000", "http://engine:8000"),
        (" https://engine/v1/\n", "https://engine"),
        ("http://engine:8000/a%20b/v1", "http://engine:8000/a%20b"),
        ("http://engine_1:8000/", "http://engine_1:8000"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
        ("https://llm.example.com./openai//v1", "https://llm.example.com./openai"),
        ("http://proxy/embeddings/v1", "http://proxy/embeddings"),
        ("http://proxy/embeddings", "http://proxy/embeddings"),
        ("http://proxy/models/", "http://proxy/models"),
    ],
)
def test_a_base_url(text: str, url: str) -> None:
    assert base_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("", "engine", "engine:8000", "ftp://engine", "http://", "http:///v1", "http://:8000"),
        *("http://engine:PORT", "http://engine:99999", "http://engine:0", "http://engine:", "http://engine:-1"),
        *(
            "http://[::1",
            "http://en gine",
            "http://engine/a b",
            "http://engine/\r\nx: y",
            "http://engine/é",
            "http://-a",
        ),
        *("http://engine/v1?a=b", "http://engine#x", "http://engine?", "http://user:hunter2@engine"),
        *("http://engine/v1/chat/completions", "http://engine/v1/completions/", "http://engine/v1/models"),
        *("http://engine/v1/embeddings", "http://engine/chat/completions"),
    ],
)
def test_what_no_request_could_be_sent_to_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refused:
        base_url(text)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("text", ["example.com", "a-b.example.com", "minio:9000", "*", "10.0.0.7", "a_b.example.com"])
def test_a_media_domain(text: str) -> None:
    assert TypeAdapter(MediaDomain).validate_python(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "Example.com", "https://example.com", "example.com/a", "*.example.com", "a@b", "[::1]", "a b", "a:", "é"],
)
def test_what_is_no_media_domain(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(MediaDomain).validate_python(text)
