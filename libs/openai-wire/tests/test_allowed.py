from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openai_wire.allowed import check_fields, check_media, check_words
from openai_wire.fields import FIELDS, RESERVED, Who
from openai_wire.requests import BadField


def refused(check: Callable[[], None]) -> str | None:
    found: BadField | None = None
    try:
        check()
    except BadField as bad:
        found = bad
    assert found is None or (found.param or "?") in found.message
    return found and found.param


def fields(body: dict[str, Any], **how: Any) -> str | None:
    """The field that is refused."""
    return refused(lambda: check_fields(body, **how))


def media(part: dict[str, Any], **how: Any) -> str | None:
    """The field that is refused, from the part on."""
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": [{"type": "text"}, part]}]
    found = refused(lambda: check_media({"messages": messages}, **how))
    return found and found.removeprefix("messages[1].content[1].")


@pytest.mark.parametrize("name", sorted(name for name, field in FIELDS.items() if field.who is not Who.CLIENT))
@pytest.mark.parametrize("value", [0, "x", {}, []])
def test_a_field_that_is_not_the_callers_is_refused(name: str, value: Any) -> None:
    assert fields({"model": "m", name: value}) == name


def test_a_field_that_is_null_is_as_good_as_left_out() -> None:
    body = {"model": "m", "priority": None, "user": None, "new": None}
    assert fields(body) is None
    assert body == {"model": "m", "user": None}


def test_fields_that_a_model_allows() -> None:
    assert fields({"priority": 1, "cache_salt": "x"}, allowed=["priority"]) == "cache_salt"
    assert fields({"priority": 1, "chat_template_kwargs": {"chat_template": "x"}}, allowed=["priority"]) is not None


def test_unknown_fields_are_passed_or_refused() -> None:
    assert fields({"brand_new": 1}) is None
    assert fields({"brand_new": 1}, unknown=False) == "brand_new"
    assert fields({"brand_new": 1}, unknown=False, allowed=["brand_new"]) is None


def test_a_template_is_not_smuggled_in_among_its_arguments() -> None:
    assert fields({"chat_template_kwargs": {"enable_thinking": False}}) is None
    assert fields({"chat_template_kwargs": {"chat_template": "{{ x }}"}}) == "chat_template_kwargs.chat_template"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://localhost/",
        "http://127.1/",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://images.example.com/a.png",
        "gopher://images.example.com/",
        "//images.example.com/a.png",
        "images.example.com/a.png",
        "/etc/passwd",
        "",
        " https://images.example.com/a.png",
        "https://images.example.com/a.png\n",
        "https://images.example.com@169.254.169.254/",
        "https://images.example.com:x@169.254.169.254/",
        "https://169.254.169.254\\@images.example.com/",
        "https://169.254.169.254\\.images.example.com/",
        "https://images.example.com%2f@169.254.169.254/",
        "https://images.example.com.evil.test/",
        "https://evil.test/images.example.com",
        "https://evil.test#images.example.com",
        "https://images.example.com./a.png",
        "https://images.example.com:22/",
        "https://images.example.com:80/",
        "http:images.example.com/a.png",
        "http:///images.example.com/a.png",
        "https://images.example.com\t/a.png",
        "https://ımages.example.com/a.png",
        " data:image/png;base64,AAAA",
        "jar:data:x",
    ],
)
@pytest.mark.parametrize("kind", ["image_url", "audio_url", "video_url"])
def test_addresses_that_are_never_fetched(url: str, kind: str) -> None:
    domains = ["images.example.com"]
    assert media({"type": kind, kind: {"url": url}}, domains=domains) == f"{kind}.url"
    assert media({kind: url}, domains=domains) == kind
    assert media({"type": kind, kind: {"url": url}}) == f"{kind}.url"


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example.com/a.png?size=2#top",
        "HTTPS://Images.Example.COM/a.png",
        "http://images.example.com",
        "https://images.example.com:443/a@b.png",
        "https://store.example.com:9000/a.png",
        "https://secure.example.com/a.png",
        "data:image/png;base64,AAAA",
        "DATA:image/png;base64,AAAA",
    ],
)
def test_addresses_of_a_domain_that_is_allowed(url: str) -> None:
    domains = ["images.example.com", "store.example.com:9000", "secure.example.com:443"]
    assert media({"type": "image_url", "image_url": {"url": url, "detail": "low"}}, domains=domains) is None


def test_any_domain_is_no_address() -> None:
    for url in ("https://a.example.com/", "http://b.example.com:80/"):
        assert media({"type": "image_url", "image_url": {"url": url}}, domains=["*"]) is None
    for host in ("169.254.169.254", "2852039166", "0xa9fea9fe", "1.0x7f", "localhost", "a.localhost", "127.0.0.1."):
        url = f"http://{host}/"
        assert media({"type": "image_url", "image_url": {"url": url}}, domains=["*"]) == "image_url.url", url


def test_other_ways_to_name_media() -> None:
    assert media({"type": "input_image", "image_url": "http://evil.test/"}) == "image_url"
    assert media({"type": "file", "file": {"file_url": "http://evil.test/"}}) == "file.file_url"
    assert media({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}) is None
    assert media({"type": "text", "text": "see http://evil.test/"}) is None
    assert media({"image_url": None, "uuid": "another tenant's"}) == "uuid"
    assert media({"type": "image_url", "image_url": {"url": "data:,"}, "uuid": None}) is None
    assert media({"type": "prompt_embeds", "data": "AAAA"}) == "type"
    assert media({"image_embeds": "AAAA"}) == "image_embeds"
    assert media({"type": "image_embeds", "image_embeds": "AAAA"}, allowed=["image_embeds"]) is None
    assert media({"type": "image_url", "image_url": ["http://evil.test/"]}) is None, "the engine refuses it"


def test_bodies_of_any_shape_are_looked_at() -> None:
    for body in ({}, {"messages": None}, {"messages": ["x", {"content": ["x", 5]}, {"content": {}}]}):
        check_media(body)


def test_what_is_reserved() -> None:
    assert {"priority", "cache_salt", "request_id", "chat_template", "uuid", "prompt_embeds"} <= RESERVED
    assert not {"model", "messages", "chat_template_kwargs", "image_url"} & RESERVED


@pytest.mark.parametrize("name", ["stop", "bad_words"])
def test_words_that_are_compared_with_every_token(name: str) -> None:
    assert refused(lambda: check_words({name: ["x"] * 257}, 256)) == name
    for harmless in (["x"] * 256, "x" * 1_000, None, 5, {}):
        check_words({name: harmless}, 256)
