"""The key of a Model's engines, as its Secret holds it."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cloudach_model_api.keys import key_of


def secret(key: bytes) -> dict[str, object]:
    return {"data": {"m": b64encode(key).decode()}}


def test_white_space_at_its_ends_is_dropped() -> None:
    """As of `echo key | base64`."""
    assert key_of(secret(b"key\n"), "m") == "key"


@pytest.mark.parametrize("key", [b"", b"\n", b"a\r\nx-admin: yes", b"a\x00b", "é".encode(), b"\xff"])
def test_what_no_header_can_hold_is_no_key(key: bytes) -> None:
    assert key_of(secret(key), "m") is None


def test_without_an_entry() -> None:
    assert key_of({}, "m") is None
    assert key_of({"data": {"m": "!"}}, "m") is None
