"""Checks texts that go into the heads of HTTP requests. A bad one is found at the start, not by the first request."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
# A proxy may serve an engine below a path such as /embeddings, so only whole endpoints are looked for.
_ENDPOINTS = ("/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models")


def header_text(text: str) -> str:
    """Returns the text as a header may hold it: Latin-1, without white space at its ends.

    A Secret often ends in a newline, because `echo key | base64` puts one there. Raises ValueError. Its message does
    not hold the text, which may be a secret.
    """
    bare = text.strip()
    if text and not bare:
        raise ValueError("it is empty but for white space")
    found = _UNPRINTABLE.search(bare)
    if found is not None:
        raise ValueError(
            f"character {found.start() + 1} is the control character U+{ord(found[0]):04X}, which no header may hold"
        )
    for at, character in enumerate(bare, 1):
        if ord(character) > 0xFF:
            raise ValueError(f"character {at} is U+{ord(character):04X}; headers hold Latin-1 only")
    return bare


def base_url(text: str) -> str:
    """Returns the base URL of an OpenAI-compatible server, without `/v1` and without a slash at its end.

    Raises ValueError for a URL to which no request could be sent.
    """
    url = text.strip()
    shown = "the URL" if "@" in url else repr(url)  # it may hold a password
    # This comes before urlsplit, because that drops tabs and newlines without a word.
    if re.search(r"[^\x21-\x7e]", url):
        raise ValueError(f"{shown} has characters that no URL may hold: percent-encode them")
    parts = _split(url, shown)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{shown} is not an http:// or https:// URL")
    if "@" in parts.netloc:
        raise ValueError("a user or a password in the URL is not sent: set api_key")
    host = parts.hostname or ""
    if not (":" in host or _HOST.fullmatch(host)):
        raise ValueError(f"{shown} has no valid host")
    if parts.netloc.endswith(":") or parts.port == 0:
        raise ValueError(f"{shown} has no valid port")
    if parts.query or parts.fragment or url[-1] in "?#":
        raise ValueError(f"{shown} is no base URL: it has a query or a fragment")
    path = parts.path.rstrip("/")
    if path.endswith(_ENDPOINTS):
        raise ValueError(f"{shown} is no base URL: /v1/chat/completions and the other paths are appended to it")
    return f"{parts.scheme}://{parts.netloc}{path.removesuffix('/v1').rstrip('/')}"


def _split(url: str, shown: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # urlsplit computes and checks the port only now
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None
    return parts


def _empty_is_none(text: str | None) -> str | None:
    """Returns None for an empty text, because `${KEY:-}` means that there is no key."""
    return text or None


def _name(name: str) -> str:
    if name != name.strip() or _UNPRINTABLE.search(name):
        raise ValueError(f"{name!r} has white space at its ends, or control characters")
    if "," in name:
        raise ValueError(f"{name!r} has a comma, which separates names on the command line")
    return name


Secret = Annotated[
    str | None, AfterValidator(lambda text: _empty_is_none(text and header_text(text))), Field(repr=False)
]
"""A bearer token. An empty one means that there is none."""

BaseUrl = Annotated[str, AfterValidator(base_url)]

MediaDomain = Annotated[
    str,
    Field(
        max_length=253,
        pattern=r"^(\*|[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*(:[0-9]{1,5})?)$",
    ),
]
"""A host from which media may be fetched, in lower case; `host:port` for another port than 80 or 443; `*` for all."""

Name = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_name)]
"""The name of a model."""
