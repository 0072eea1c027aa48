"""Checks what a caller may put into a request: its own fields, and media from addresses that are allowed.

All functions look at the parsed body, and raise `BadField` with the path of the first field that is refused. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .fields import CLIENTS, FIELDS, PARTS, Who
from .requests import BadField

ANY_DOMAIN = "*"

# Only what every parser reads alike may pass: no user info, brackets, percent signs or backslashes before the path.
_URL = re.compile(r"(https?)://([A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?([/?#][\x21-\x5b\x5d-\x7e]*)?", re.I)
_ADDRESS = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*|localhost)\.?", re.I)  # IPv4 in any notation ends in a number
_PORTS = {"http": "80", "https": "443"}


def check_fields(body: dict[str, Any], *, allowed: Collection[str] = (), unknown: bool = True) -> None:
    """Refuses fields that a caller may not set, but for those that `allowed` names.

    Unknown fields are refused too, if `unknown` is False. Where such a field is null it is removed, because an engine
    may refuse null.
    """
    for name in body.keys() - CLIENTS:
        if name in allowed:
            continue
        if body[name] is None:
            del body[name]
        elif name in FIELDS:
            raise _refused(name, FIELDS[name].who)
        elif not unknown:
            raise BadField(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    inner = body.get("chat_template_kwargs")
    if isinstance(inner, Mapping) and "chat_template" in inner and "chat_template" not in allowed:
        raise _refused("chat_template_kwargs.chat_template", Who.NOBODY)


def check_words(body: Mapping[str, Any], most: int) -> None:
    """Refuses long lists of words that an engine compares with every token, while all other requests wait."""
    for name in ("stop", "bad_words"):
        words = body.get(name)
        if isinstance(words, list) and len(words) > most:
            what = f"it has {len(words)} entries, and at most {most} are accepted"
            raise BadField(f"Invalid '{name}': {what}.", param=name, code="invalid_value")


def check_media(body: Mapping[str, Any], *, domains: Collection[str] = (), allowed: Collection[str] = ()) -> None:
    """Refuses content parts with foreign addresses, and what `PARTS` keeps from callers.

    An address must be `data:` or of one of the `domains`. A domain is `example.com`, or `example.com:8443` for another
    port than the scheme's own; `*` stands for all names.
    """
    messages = body.get("messages")
    if not isinstance(messages, list):
        return
    for number, message in enumerate(messages):
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, list):
            continue
        for place, part in enumerate(content):
            if isinstance(part, Mapping):
                _check_part(part, f"messages[{number}].content[{place}]", domains, allowed)


def _check_part(part: Mapping[str, Any], path: str, domains: Collection[str], allowed: Collection[str]) -> None:
    kind = part.get("type")
    if isinstance(kind, str) and PARTS.get(kind, Who.CLIENT) is not Who.CLIENT and kind not in allowed:
        raise BadField(
            f"Invalid '{path}.type': parts of the type '{kind}' are not accepted here.",
            param=f"{path}.type",
            code="unsupported_parameter",
        )
    for name, value in part.items():
        who = PARTS.get(name, Who.CLIENT)
        if who is not Who.CLIENT and value is not None and name not in allowed:
            raise _refused(f"{path}.{name}", who)
        for where, url in _urls(name, value):
            if not _may_fetch(url, domains):
                named = ", ".join(sorted(domains)) if domains and ANY_DOMAIN not in domains else ""
                only = f"a 'data:' URL, or one of {named}" if named else "a 'data:' URL"
                raise BadField(
                    f"Invalid '{path}.{where}': media are not fetched from this address; send {only}.",
                    param=f"{path}.{where}",
                    code="invalid_value",
                )


def _urls(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields every address that a field of a content part holds, with its path in the part."""
    if isinstance(value, str):
        if name.endswith("url"):
            yield name, value
    elif isinstance(value, Mapping):
        for inner, text in value.items():
            if inner.endswith("url") and isinstance(text, str):
                yield f"{name}.{inner}", text


def _may_fetch(url: str, domains: Collection[str]) -> bool:
    if url[:5].lower() == "data:":
        return True
    match = _URL.fullmatch(url)
    if match is None:
        return False
    host = match[2].lower()
    usual = _PORTS[match[1].lower()]
    port = match[3] or usual
    if f"{host}:{port}" in domains:
        return True
    return port == usual and (host in domains or (ANY_DOMAIN in domains and not _ADDRESS.fullmatch(host)))


def _refused(path: str, who: Who) -> BadField:
    why = "is set by the platform" if who is Who.PLATFORM else "is not accepted here"
    return BadField(f"Unsupported parameter: '{path}' {why}; leave it out.", param=path, code="unsupported_parameter")
